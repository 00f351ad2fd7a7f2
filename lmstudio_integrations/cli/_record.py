"""`record`: a proxy in front of an LM Studio that writes what passes to a file."""

import contextlib
import signal
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Annotated

import typer

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations._support.text import counted
from lmstudio_integrations.cli import INTERRUPTED
from lmstudio_integrations.cli._common import Host, Token, check_writable, note, on_interrupt, results

_TURN = 0.2
"""Seconds after which a signal is noticed: it does not always end a sleep."""


def record(
    to: Annotated[Path, typer.Option(metavar="FILE", help="The cassette to write.")],
    host: Host = None,
    token: Token = None,
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="The port to listen on; 0 for any free one.")
    ] = 0,
) -> None:
    """Record what programs and an LM Studio say to each other, to replay it in tests.

    The first line of the output is the address that programs must connect to. Ctrl-C ends the recording. Prompts and
    responses are recorded; API tokens and the folders of users are not.
    """
    from lmstudio_integrations.emulator import Recording  # noqa: PLC0415 - slow

    check_writable(to, "--to")
    server = find_server(host, token)
    recording = Recording(to, server, port=port)
    try:
        with recording, interruption() as wait:
            note(f"Prompts and responses of every program that connects are written to {to}; API tokens are not.")
            results().write_line(f"ws://{recording.address}")
            note(f"To use it: export {HOST_VARIABLE}={recording.address}")
            note(f"It is {server} that responds. Ctrl-C ends the recording.")
            wait()
    finally:
        note(f"{counted(recording.requests, 'request')} in {to}.")
    raise typer.Exit(INTERRUPTED)


def find_server(host: str | None, token: str | None) -> str:
    """Return the address of the LM Studio to record.

    Raises:
        LMStudioClientError: If there is none, or it rejects the token.
    """
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415 - slow
    from lmstudio_integrations.client.transport.connect.addresses import Address  # noqa: PLC0415
    from lmstudio_integrations.errors import LMStudioValueError  # noqa: PLC0415

    with Client(host, token) as client:
        client.system.get_version()
        address = client.api_host or Client.find_default_local_api_host() or ""
    if Address.parse(address).tls:
        raise LMStudioValueError(f"{address} uses TLS, and a recording needs a server without; name LM Studio itself")
    return address


@contextlib.contextmanager
def interruption() -> Generator[Callable[[], None]]:
    """Provide the function that waits for Ctrl-C or SIGTERM."""
    # No `threading.Event`: a handler that interrupts its `wait` may wait forever for the lock that this holds.
    is_over = False

    def end(*_signal: object) -> None:
        nonlocal is_over
        is_over = True

    def wait() -> None:
        while not is_over:
            time.sleep(_TURN)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        with on_interrupt(end):
            yield wait
    finally:
        signal.signal(signal.SIGTERM, previous)
