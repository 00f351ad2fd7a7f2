"""Which servers the client may connect to while tests block all others, with `pytest --lmstudio-block`.

Emulators and proxies of this process allow their ports while they listen. The client asks before each connection.
"""

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
