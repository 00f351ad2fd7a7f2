"""`top`: what the loaded models of one or several servers do, on one screen."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from lmstudio_integrations._support.text import printable_line
from lmstudio_integrations.cli._common import AsJson, Prompts, Token, print_json, results

if TYPE_CHECKING:
    from lmstudio_integrations.cli._monitor import Monitor

_INTERVAL = 1.0
"""Seconds between two views."""

_TIMEOUT = 5.0
"""How many seconds the only view of `--once` waits for a server."""


def top(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Print one view, without what only the log has.", show_default=False)
    ] = False,
    prompts: Prompts = False,
    as_json: AsJson = False,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="The LM Studio to watch, as host:port or a URL; several with commas.",
            show_default=False,
        ),
    ] = None,
    token: Token = None,
) -> None:
    """Show what the loaded models do, until Ctrl-C: requests, queue, speed and errors.

    On a terminal, it is one screen. In a pipe, the views follow each other; with --json, each is one line.
    """
    from lmstudio_integrations.cli._logs import for_json  # noqa: PLC0415 - slow
    from lmstudio_integrations.cli._monitor import Monitor, view_lines, view_members  # noqa: PLC0415
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415
    from lmstudio_integrations.client.transport.connect.addresses import hosts_of  # noqa: PLC0415

    hosts, console, screen = hosts_of(host), results(), None
    # The clients are closed before the pool, whose threads wait for them.
    with ThreadPoolExecutor(2 * len(hosts)) as pool, contextlib.ExitStack() as stack:
        monitors = [Monitor(stack.enter_context(Client(each, token))) for each in hosts]
        rounds = _rounds(monitors, pool, once=once)
        next(rounds)
        if all(monitor.error for monitor in monitors) and monitors[0].error:
            raise monitors[0].error
        if console.file.isatty() and not (console.is_dumb_terminal or once or as_json):
            # Nothing is redirected: rich would obey the codes in it.
            live = Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
            screen = stack.enter_context(live)
        for _ in itertools.chain([None], rounds):
            if as_json:
                print_json(for_json(view_members(monitors, time(), prompts=prompts)), on_one_line=True)
            elif screen is None:
                for line, style in view_lines(monitors, time(), console, prompts=prompts):
                    console.write_line(line, style)
            else:
                lines = view_lines(monitors, time(), console, prompts=prompts)
                texts = (Text(printable_line(line), style, no_wrap=True, overflow="ellipsis") for line, style in lines)
                screen.update(Group(*texts), refresh=True)


def _rounds(monitors: "Sequence[Monitor]", pool: ThreadPoolExecutor, *, once: bool) -> Iterator[None]:
    """Ask the servers, and yield when a view is due, whether or not all have responded."""
    while True:
        next_at = monotonic() + _INTERVAL
        wait([monitor.ask(pool) for monitor in monitors], _TIMEOUT if once else _INTERVAL)
        for monitor in monitors:
            monitor.update()
        yield
        if once:
            return
        for monitor in monitors:
            monitor.follow_log(pool)
        sleep(max(0.0, next_at - monotonic()))
