"""What the package takes from around it: its release, variables, files that users name, the memory, and a guard.

The guard says which servers the client may connect to while tests block all others, with `pytest --lmstudio-block`.
"""

import errno
import os
import sys
from pathlib import Path

HOST_VARIABLE = "LMSTUDIO_HOST"
"""The server, if none is given."""

SERVER_FILE_VARIABLE = "LMS_API_SERVER_INFO_PATH"
"""The file that names the port of the server on this machine, in place of the one in LM Studio's folder."""

TOKEN_VARIABLES = ("LM_API_TOKEN", "LMSTUDIO_API_TOKEN")
"""The API token, if none is given; the first variable takes precedence."""


def regular(path: Path) -> Path:
    """Return the path of a file, if it is one or can become one.

    Raises:
        OSError: If it is a pipe or a device, which may never end, or cannot be looked at.
        ValueError: If no file can have that path.
    """
    try:
        path.stat()
    except FileNotFoundError:
        return path
    if not (path.is_file() or path.is_dir()):  # of a folder, the system's own error says more
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    return path


_CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")


def memory_of_machine() -> int:
    """Return the memory of this machine, or of the container, in bytes; 0 on Windows, which is not asked."""
    if sys.platform == "win32":
        return 0
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(whole, int(_CONTROL_GROUP.read_text(encoding="ascii")))
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return whole


_allowed: set[tuple[str, int]] = set()
_is_on = False


def block() -> None:
    """Reject all connections from now on, except to the servers of this process."""
    global _is_on  # noqa: PLW0603 - one process has one test run
    _is_on = True


def unblock() -> None:
    """Reject no connection from now on."""
    global _is_on  # noqa: PLW0603 - one process has one test run
    _is_on = False


def allow(host: str, port: int) -> None:
    """Allow connections to a server of this process."""
    _allowed.add((host, port))


def disallow(host: str, port: int) -> None:
    """Take that back, because the server has stopped."""
    _allowed.discard((host, port))


def is_blocked(host: str, port: int, *, is_loopback: bool) -> bool:
    """Whether a connection is rejected. A server of this process is known by all names of this machine's loopback."""
    if not _is_on or (host, port) in _allowed:
        return False
    return not (is_loopback and any(port == allowed for _, allowed in list(_allowed)))  # servers may start meanwhile


__version__ = "0.1.0"
"""The build reads it from here."""

USER_AGENT = f"lmstudio-integrations/{__version__}"
"""The header of each HTTP request, unless a user gives another."""
