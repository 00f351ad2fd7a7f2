"""What several commands share: the options of a server, where text is printed, and lists of models.

Results are printed on stdout; notes and errors on stderr, so that a pipe contains only results.
"""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.segment import Segment, Segments
from rich.text import Text

from lmstudio_integrations._support.text import Escapes, printable, printable_line
from lmstudio_integrations.cli._formatting import wrapped
from lmstudio_integrations.errors import LMStudioModelNotFoundError

if TYPE_CHECKING:
    from lmstudio_integrations.client.api.sync import Client
    from lmstudio_integrations.types.config import ModelKind
    from lmstudio_integrations.types.models import ModelInfo, ModelInstanceInfo

WIDTH_IN_A_PIPE = 10_000
"""Columns. Nothing is wrapped or cut for programs."""

_ESCAPES = Escapes(lambda character: json.dumps(character)[1:-1], kept="\n\t")
"""JSON's own: the document has the same value."""

Host = Annotated[
    str | None, typer.Option(metavar="HOST", help="The LM Studio to use, as host:port or a URL.", show_default=False)
]
Token = Annotated[
    str | None, typer.Option(metavar="TOKEN", help="Its API token; prefer LM_API_TOKEN.", show_default=False)
]
OnDevice = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="The machine: local, or a linked device.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.", show_default=False)]


class TextConsole(Console):
    """A console for texts of servers and models. They are strings, not rich's `Text`, and never markup.

    A terminal and a recording show them escaped; elsewhere they stay as they are.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return a line for rich's layout."""
        return super().render_str(self._escape(text, printable_line), **settings)

    def write(self, text: str, style: str = "") -> None:
        """Print a part of a text of any number of lines, without layout."""
        shown = self._escape(text, printable)
        if self.is_terminal or self.record:
            self.print(Segments([Segment(shown)]), style=style, end="", soft_wrap=True)
        else:  # rich's buffer would print a note twice that a second Ctrl-C interrupts
            self.file.write(shown)
            self.file.flush()

    def write_line(self, line: str, style: str = "") -> None:
        """Print a line, without layout."""
        self.write(f"{self._escape(line, printable_line)}\n", style)

    def write_wrapped(self, line: str, indent: int, *, written: int = 0, style: str = "") -> None:
        """Print a line; on a terminal, no word is broken in two.

        Args:
            line: The line.
            indent: Columns before its further lines on a terminal.
            written: How many of its characters are written already.
            style: The style of the others.
        """
        if not self.is_terminal:
            self.write_line(line[written:], style)
            return
        for part in wrapped(printable_line(line), self.width, indent)[written:].split("\n"):
            self.write_line(part, style)

    def _escape(self, text: str, escape: Callable[[str], str]) -> str:
        return escape(text) if self.record or self.file.isatty() else text


def results() -> TextConsole:
    """Return the console for results, which writes to stdout."""
    console = TextConsole()
    return console if console.is_terminal else TextConsole(width=WIDTH_IN_A_PIPE)


def note(text: str) -> None:
    """Print a line on stderr."""
    TextConsole(stderr=True).write_line(text)


def print_json(value: Any) -> None:
    is_unicode = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    text = json.dumps(value, indent=2, ensure_ascii=not is_unicode)
    typer.echo(text.translate(_ESCAPES))


def downloaded_models(client: "Client", kind: "ModelKind | None" = None) -> "list[ModelInfo]":
    """Return the downloaded models, or those of one kind, by key."""
    return sorted((model.info for model in client.list_downloaded_models(kind)), key=lambda info: info.model_key)


def loaded_models(client: "Client", kind: "ModelKind | None" = None) -> "list[ModelInstanceInfo]":
    """Return the loaded instances, or those of one kind, by identifier."""
    infos: list[ModelInstanceInfo] = []
    for handle in client.list_loaded_models(kind):
        try:
            infos.append(handle.get_info())
        except LMStudioModelNotFoundError:  # it was unloaded since
            continue
    return sorted(infos, key=lambda info: info.identifier)
