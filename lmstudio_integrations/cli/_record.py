"""`record`: a proxy in front of an LM Studio that writes what passes to a file."""

import contextlib
import signal
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Annotated, Any

import typer

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations._support.text import counted
from lmstudio_integrations.cli._common import Host, Redact, Token, note, on_interrupt, results, warnings_as_notes

PROBE_HELP = (
    "Record what LM Studio does where the specification of its protocol is unsure, in calls to instances of this model "
    "that are loaded and unloaded for that. Lists the questions first, and asks."
)
PLUGIN_HELP = "With --probe: the plugin whose tools are listed; none is called. By default one that does not exist."
YES_HELP = "With --probe: make the calls without asking."

_TURN = 0.2
"""Seconds after which a signal is noticed: it does not always end a sleep."""


def record(  # noqa: PLR0917 - one parameter for each flag
    to: Annotated[
        Path, typer.Option(metavar="FILE", help="The cassette to write, compressed if the name ends in .gz.")
    ],
    host: Host = None,
    token: Token = None,
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="The port to listen on; 0 for any free one.")
    ] = 0,
    redact: Redact = None,
    contents: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--contents", help="Record the contents of images and files, instead of their hashes.")
    ] = False,
    probe: Annotated[str | None, typer.Option(metavar="MODEL", help=PROBE_HELP, show_default=False)] = None,
    plugin: Annotated[str | None, typer.Option(metavar="PLUGIN", help=PLUGIN_HELP, show_default=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", help=YES_HELP)] = False,  # noqa: FBT002 - a flag
) -> None:
    """Record what programs and an LM Studio say to each other, to replay it in tests.

    The first line of the output is the address that programs must connect to. Ctrl-C ends the recording. Prompts and
    responses are recorded; API tokens and the folders of users are not.
    """
    from lmstudio_integrations.emulator import Recording  # noqa: PLC0415 - slow

    server = find_server(host, token)
    if probe is not None:
        record_probe(server, probe, to, token=token, plugin=plugin, redact=redact or (), contents=contents, yes=yes)
        return
    recording = Recording(to, server, redact=redact or (), contents=contents, port=port)
    try:
        with recording, interruption() as wait:
            note(f"Prompts and responses of every program that connects are written to {to}; API tokens are not.")
            results().write_line(f"ws://{recording.address}")
            note(f"To use it: export {HOST_VARIABLE}={recording.address}")
            note(f"It is {server} that responds. Ctrl-C ends the recording.")
            wait()
    finally:
        note(f"{counted(recording.requests, 'request')} in {to}.")


def record_probe(server: str, model_key: str, to: Path, *, yes: bool, **settings: Any) -> None:
    """Ask LM Studio what is unknown of it, if the user agrees, and record that.

    Raises:
        typer.Abort: If the user does not agree.
    """
    from lmstudio_integrations.cli._probe.run import confirm_calls, run_probe  # noqa: PLC0415 - slow

    confirm_calls(model_key, server, yes=yes)
    with warnings_as_notes():
        requests = run_probe(server, model_key, to, on_question=lambda question: note(f"{question.name} …"), **settings)
    note(f"{counted(requests, 'request')} in {to}. Read it before you share it.")


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
