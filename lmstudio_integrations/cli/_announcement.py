"""What `serve --announce` writes: the file by which programs of this machine find a server, as LM Studio writes it."""

import contextlib
import json
import os
from collections.abc import Generator
from pathlib import Path

from lmstudio_integrations.client.transport.connect.discovery import server_file
from lmstudio_integrations.client.transport.connect.find import search
from lmstudio_integrations.client.transport.flows import run
from lmstudio_integrations.client.transport.mailboxes import ThreadMailbox
from lmstudio_integrations.errors import LMStudioOSError, LMStudioRuntimeError, LMStudioValueError

_HOST = "127.0.0.1"
"""Where programs look for a server whose port is in the file."""


def check_announcement(host: str) -> None:
    """Check whether a server can be announced.

    Raises:
        LMStudioValueError: If programs would not find it on the address that it listens on.
        LMStudioRuntimeError: If another server is announced, and runs.
        LMStudioOSError: If LM Studio's folder cannot be found.
    """
    if host not in {_HOST, "localhost", "0.0.0.0"}:  # noqa: S104 - compared
        raise LMStudioValueError(
            f"--announce lets programs look for the server on {_HOST}, but it is to listen on {host}; omit --host or "
            "--announce"
        )
    other, attempts = run(search(ThreadMailbox))
    if other is not None and attempts[0].problem is None:
        raise LMStudioRuntimeError(
            f"{server_file()} announces the server at {other.netloc}; stop that one first, or omit --announce"
        )


@contextlib.contextmanager
def announcement(port: int) -> Generator[None]:
    """Let programs find the server on a port for the duration of the block.

    Raises:
        LMStudioOSError: If the file cannot be written.
    """
    path = Path(os.path.realpath(server_file()))  # a link stays one
    content = json.dumps({"host": _HOST, "pid": os.getpid(), "port": port}).encode()
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise LMStudioOSError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if path.read_bytes() == content:  # no other server has announced itself since
                path.unlink()
