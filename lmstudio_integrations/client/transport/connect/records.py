"""Where the applications of this machine write down the port of their server, and which of these records count.

Each application keeps a record, `http-server.json`, in a folder of its own: LM Studio and llmster share one, Bionic has
another. `discovery.py` tries the ports. Nothing is written. The files:
[discovery by file](docs/protocol.md#discovery-by-file).
"""

import contextlib
import ctypes
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from pydantic_core import from_json

from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.client.transport.connect.addresses import server_file_from_environment
from lmstudio_integrations.errors import LMStudioOSError

_SHARED, _BIONIC = ".internal/http-server.json", "apps/bionic/.internal/http-server.json"
"""Below the home: the record of LM Studio and llmster, and that of Bionic."""

_MAX_FILE_BYTES = 65536

_MAY_QUERY, _STILL_RUNS = 0x1000, 259
"""Windows: the right to ask for the state of a process, and the exit code of one that runs."""


class ServerFileError(LMStudioOSError):
    """A file does not say where a server listens, or where LM Studio's folder is."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path: str = str(path) if str(path).isprintable() else ascii(str(path))
        self.reason: str = reason
        super().__init__(f"{self.path}: {reason}")


def shared_file() -> Path:
    """Return the file of LM Studio and llmster, or the one that the environment names in place of all.

    Raises:
        ServerFileError: If LM Studio's folder cannot be found.
    """
    return _files()[0]


def bionic_file() -> Path:
    """Return the file of Bionic.

    Raises:
        ServerFileError: If LM Studio's folder cannot be found.
    """
    return home() / _BIONIC


def port_in(path: Path) -> int:
    """Return the port in a file.

    Raises:
        ServerFileError: If it has none, or its process has ended.
    """
    try:
        content = from_json(_text_of(path))
    except ValueError as error:
        raise ServerFileError(path, "it is not JSON") from error
    members: Any = content if is_mapping(content) else {}
    port, pid = members.get("port"), members.get("pid")
    if type(port) is not int or not 0 < port < 65536:
        raise ServerFileError(path, "it has no 'port' from 1 to 65535")
    if pid is not None and (type(pid) is not int or pid < 1):
        raise ServerFileError(path, "its 'pid' is not the number of a process")
    if pid is not None and not _runs(pid):
        raise ServerFileError(path, f"its process {pid} has ended")
    return port


def announced_ports() -> tuple[int, ...]:
    """Return the ports that the records name now, without those that cannot be read at once."""
    with contextlib.suppress(Exception):  # also that of a program that lets no event loop read a file
        return tuple(_ports(_files()))
    return ()


def is_in_own_file(port: int) -> bool:
    """Whether a record that only this user can write names a port."""
    with contextlib.suppress(ServerFileError):
        return port in _ports(filter(_is_own, _files()))
    return False


def home() -> Path:
    """Return the folder of LM Studio and Bionic.

    Raises:
        ServerFileError: If the user has no folder, or the file that names LM Studio's is invalid.
    """
    try:
        user = Path(os.path.realpath(Path.home()))
    except RuntimeError as error:
        raise ServerFileError(Path("~"), "the home folder of this user is unknown") from error
    pointer = user / ".lmstudio-home-pointer"
    if os.path.lexists(pointer):
        named = Path(_text_of(pointer).strip())
        if "\0" in str(named) or not named.is_absolute():
            raise ServerFileError(pointer, "it does not have the absolute path of a folder")
        return named
    before = user / ".cache" / "lm-studio"
    return before if os.path.exists(before) else user / ".lmstudio"  # noqa: PTH110 - raises nothing if it is not permitted


def _files() -> tuple[Path, ...]:
    named = server_file_from_environment()
    if named is not None:
        return (Path(named),)
    folder = home()
    return folder / _SHARED, folder / _BIONIC


def _ports(paths: Iterable[Path]) -> Iterator[int]:
    for path in paths:
        with contextlib.suppress(ServerFileError):
            yield port_in(path)


def _is_own(path: Path) -> bool:
    """Whether only this user can write a file."""
    try:
        status = path.stat()
    except OSError:
        return False
    # On Windows, files have no owner here; the folder of a user is closed to others.
    return os.name == "nt" or (status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _runs(pid: int) -> bool:
    """Whether this user may ask for a process, and it runs: what LM Studio's command line takes as running."""
    if os.name == "nt":
        return _runs_on_windows(pid)  # pragma: no cover
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):
        return False
    return True


def _runs_on_windows(pid: int) -> bool:  # pragma: no cover - `os.kill` would end the process
    kernel = cast("Any", ctypes).windll.kernel32  # type checkers know it on Windows only
    process = kernel.OpenProcess(_MAY_QUERY, False, pid)  # noqa: FBT003 - Windows' own order
    if not process:
        return False
    code = ctypes.c_ulong()
    is_known = kernel.GetExitCodeProcess(process, ctypes.byref(code))
    kernel.CloseHandle(process)
    return bool(is_known) and code.value == _STILL_RUNS


def _text_of(path: Path) -> str:
    """Return the text of a small file.

    Raises:
        ServerFileError: If that is not possible at once.
    """
    content: bytes | None = None
    try:
        if stat.S_ISREG(path.stat().st_mode):  # the end of a pipe may never come
            with path.open("rb") as file:
                content = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise ServerFileError(path, "it does not exist") from error
    except OSError as error:
        raise ServerFileError(path, f"it cannot be read ({error.strerror or error})") from error
    if content is None:
        raise ServerFileError(path, "it is not a file")
    if len(content) > _MAX_FILE_BYTES:
        raise ServerFileError(path, "it is too large")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ServerFileError(path, "it is not UTF-8") from error
