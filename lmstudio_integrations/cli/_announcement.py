"""What `serve --announce` writes: the file by which programs of this machine find a server, as LM Studio writes it."""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Generator
from pathlib import Path

from pydantic_core import from_json

from lmstudio_integrations._support.typeguards import is_count, is_object
from lmstudio_integrations.client.transport.connect.discovery import server_file
from lmstudio_integrations.client.transport.connect.find import search
from lmstudio_integrations.client.transport.flows import run
from lmstudio_integrations.client.transport.mailboxes import ThreadMailbox
from lmstudio_integrations.errors import LMStudioOSError, LMStudioRuntimeError, LMStudioValueError

_HOST = "127.0.0.1"
"""Where programs look for a server whose port is in the file."""

_MEMBERS = {"host", "pid", "port"}
"""What a server writes into it."""

_LONGEST = 1024
"""Bytes; the file of a server is shorter."""


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
    path = server_file()
    content = json.dumps({"host": _HOST, "pid": os.getpid(), "port": port}).encode()
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    is_begun = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_replaceable(path)
        with draft.open("xb") as file:
            is_begun = True
            file.write(content)
        draft.replace(path)
    except OSError as error:
        if is_begun:
            with contextlib.suppress(OSError):
                draft.unlink()
        raise LMStudioOSError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            # No other server has announced itself since, and nobody has put something else there.
            if stat.S_ISREG(path.lstat().st_mode) and path.read_bytes() == content:
                path.unlink()


def _check_replaceable(path: Path) -> None:
    """Reject a file that no server has written, because the environment may name any.

    Raises:
        OSError: If it is a link, or anything but the file of a server.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    known = None
    if stat.S_ISREG(mode):
        with path.open("rb") as file, contextlib.suppress(ValueError):
            known = from_json(file.read(_LONGEST))
    if not (is_object(known) and known.keys() <= _MEMBERS and is_count(known.get("port"))):
        raise OSError(errno.EEXIST, "it exists, and no server has written it; delete it or name another one", str(path))
