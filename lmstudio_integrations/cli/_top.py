"""`top`: what the loaded models of one or several servers do, on one screen."""

import contextlib
from concurrent.futures import ThreadPoolExecutor, wait
from time import sleep, time
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from lmstudio_integrations._support.text import printable_line
from lmstudio_integrations.cli._common import AsJson, Prompts, Token, print_json, results

_INTERVAL = 1.0
"""Seconds between two views, and how long one waits for a server that is slow."""


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
    from lmstudio_integrations.cli._monitor import Monitor, view_lines, view_members  # noqa: PLC0415 - slow
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415
    from lmstudio_integrations.client.transport.connect.addresses import hosts_of  # noqa: PLC0415

    hosts, console, screen = hosts_of(host), results(), None
    # The clients are closed before the pool, whose threads wait for them.
    with ThreadPoolExecutor(2 * len(hosts)) as pool, contextlib.ExitStack() as stack:
        monitors = [Monitor(stack.enter_context(Client(each, token))) for each in hosts]
        wait([monitor.refresh(pool) for monitor in monitors])
        if all(monitor.error for monitor in monitors) and monitors[0].error:
            raise monitors[0].error
        if console.file.isatty() and not (console.is_dumb_terminal or once or as_json):
            # Nothing is redirected: rich would obey the codes in it.
            live = Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
            screen = stack.enter_context(live)
        while True:
            if as_json:
                print_json(view_members(monitors, time(), prompts=prompts), on_one_line=True)
            elif screen is None:
                for line, style in view_lines(monitors, time(), console, prompts=prompts):
                    console.write_line(line, style)
            else:
                lines = view_lines(monitors, time(), console, prompts=prompts)
                texts = (Text(printable_line(line), style, no_wrap=True, overflow="ellipsis") for line, style in lines)
                screen.update(Group(*texts), refresh=True)
            if once:
                return
            for monitor in monitors:
                monitor.follow_log(pool)
            sleep(_INTERVAL)
            done, _ = wait([monitor.refresh(pool) for monitor in monitors], timeout=_INTERVAL)
            for each in done:
                each.result()  # raises what is no error of a server
