"""What the commands share: the options of a server, where text is printed, and progress bars.

Results are printed on stdout; notes, progress and errors on stderr, so that a pipe contains only results.
"""

import contextlib
import json
import signal
import warnings
from collections.abc import Callable, Generator
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

WIDTH_IN_A_PIPE = 10_000
"""Columns. Nothing is wrapped or cut for programs."""

Host = Annotated[
    str | None, typer.Option(metavar="HOST", help="The LM Studio to use, as host:port or a URL.", show_default=False)
]
Token = Annotated[
    str | None, typer.Option(metavar="TOKEN", help="Its API token; better set LM_API_TOKEN.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.", show_default=False)]


def results() -> Console:
    """Return the console for results, which writes to stdout."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH_IN_A_PIPE)


def notes() -> Console:
    """Return the console for everything that is not a result, which writes to stderr."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """Print a line on stderr."""
    notes().print(Text(text))


def print_json(value: Any) -> None:
    """Print a value as one JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


@contextlib.contextmanager
def on_interrupt(call: Callable[[], None]) -> Generator[None, None, None]:
    """Let Ctrl-C in the block call a function, unless it is ignored, as in a background job of a script."""

    def handle(_signal: int, _frame: FrameType | None) -> None:
        call()

    previous = signal.getsignal(signal.SIGINT)
    if previous is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def warnings_as_notes() -> Generator[None, None, None]:
    """Print the warnings of the block as notes, without the lines of code that they are about."""

    def show(message: Warning | str, *_details: Any, **_more: Any) -> None:
        note(f"Warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def progress_bar(label: str, console: Console | None = None) -> Generator[Callable[[float], None], None, None]:
    """Show a bar while the block runs, and provide the function that moves it.

    Args:
        label: The text in front of the bar.
        console: Where it is shown; if it is no terminal, only its end is. By default on stderr, if that is a terminal.

    Yields:
        A function that takes the progress, from 0.0 to 1.0.
    """
    shown = console or notes()
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=shown, disable=console is None and not shown.is_terminal) as progress:
        task = progress.add_task(label, total=1.0)

        def show(part: float) -> None:
            progress.update(task, completed=part)

        yield show
