"""The identities with which this process authenticates without a token. They live on the I/O thread.

`connections.py` keeps them as long as the thread, so a forked child has others; each `SocketSession` joins one.
"""

from collections.abc import Callable
from typing import Protocol

from lmstudio_integrations.client.transport.connect.addresses import Address, Credentials
from lmstudio_integrations.protocol.session import ClientSession


class GuestSocket(Protocol):
    """A `SocketSession`, as far as it concerns its identity."""

    session: ClientSession
    """The session on it."""

    @property
    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        ...

    def close(self, make_error: Callable[[], BaseException] | None = None) -> None:
        """Close the socket; waiting callers get an exception."""
        ...


class Guest:
    """An identity that all sockets to a server share, because uploaded files belong to it.

    Attributes:
        credentials: What the server receives.
        sockets: Which sockets have it.
        was_accepted: Whether the server has accepted it.
        was_released: Whether the server has released it.
    """

    def __init__(self) -> None:
        self.credentials: Credentials = Credentials.new_guest()
        self.sockets: set[GuestSocket] = set()
        self.was_accepted: bool = False
        self.was_released: bool = False

    @property
    def in_use(self) -> bool:
        """Whether another socket may have it.

        With the last one, a server may release it, and reject it from then on (docs/protocol.md#authentication-rules).
        """
        return not self.was_released and any(not socket.is_closing for socket in self.sockets)


class Guests:
    """The current identity for each server."""

    def __init__(self) -> None:
        self._current: dict[Address | None, Guest] = {}

    def join(self, address: Address | None, socket: GuestSocket) -> Guest:
        """Return the identity of a socket that is about to authenticate: that of the open ones, else a new one."""
        guest = self._current.get(address)
        if guest is None or not guest.in_use:
            guest = self._current[address] = Guest()
        guest.sockets.add(socket)
        return guest
