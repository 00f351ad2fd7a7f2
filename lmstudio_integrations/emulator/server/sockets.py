"""Sockets with limits on what a peer can make the server buffer, and the pool that limits their number.

Used by `ConnectionHandler`, which understands the frames; the `websockets` library reads them.
Everything here belongs to the emulator's event loop.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from lmstudio_integrations.emulator.server.limits import Limits
from lmstudio_integrations.emulator.testing.listening import reset

logger: logging.Logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 2.0
"""Seconds that a client has to reply to a close frame."""

MAX_BYTES_BEFORE_AUTHENTICATION = 128 * 1024
"""Bytes that a client may send before it is authenticated, including its HTTP request."""

MAX_FRAGMENTS = 4096
"""Fragments of one message. Empty ones do not add to its size, but each takes memory."""

SPARE_SOCKETS = 16
"""Sockets that may wait for authentication when all connections are in use; they get an HTTP error."""

RESERVED_FILES = 128
"""Files that the process needs besides its connections: weights, pipes to workers, logs."""

_OTHER_METHODS = (b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ", b"HEAD ")
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Socket(ServerConnection):
    """One TCP connection.

    Args:
        pool: The pool that counts it.
        limits: The limits of its peer.
        arguments: Passed by the library, as `settings`.
    """

    def __init__(self, *arguments: Any, pool: "SocketPool", limits: Limits, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._pool = pool
        self._limits = limits
        self.is_half_closed: bool = False
        self.on_pong: Callable[[bytes], None] = lambda _: None
        """Called with the content of each pong."""
        self._authenticated = False
        self._received = 0
        self._fragments = 0
        self._last_received = self.loop.time()
        self._keepalive: asyncio.TimerHandle | None = None
        self._closing: asyncio.TimerHandle | None = None

    @property
    def writable(self) -> bool:
        """Whether data can still be written."""
        return self.protocol.state is State.OPEN and not self.is_half_closed and not self.transport.is_closing()

    def on_authenticated(self) -> None:
        """Lift the restrictions on clients that have not authenticated."""
        self._authenticated = True
        self._pool.on_authenticated(self)

    def write(self, frames: list[str]) -> None:
        """Send frames in one write, unless too much earlier output is still unread."""
        if not self.writable or self._has_backlog():
            return
        for frame in frames:
            self.protocol.send_text(frame.encode())
        self.transport.write(b"".join(self.protocol.data_to_send()))

    def half_close(self) -> None:
        """Close the writing side; nothing may be written afterwards."""
        self.is_half_closed = True
        self.transport.write_eof()

    def reset(self) -> None:
        """Send RST."""
        reset(self.transport)

    async def deliver(self, data: bytes) -> None:
        """Send bytes, whatever they are."""
        if self.writable:
            self.transport.write(data)

    def drop(self, reason: str) -> None:
        """Close the socket at once, without a close frame."""
        if not self.transport.is_closing():
            logger.warning("closed the connection of %s: %s", self.remote_address, reason)
            self.transport.abort()

    def start_pings(self) -> None:
        """Ping the peer while it is silent, and drop it if it does not reply.

        The library's own pings wait until the peer reads, which a peer that was lost during a prediction never does.
        """
        interval, timeout = self._limits.ping_interval, self._limits.ping_timeout
        if interval is None or self.is_half_closed or self.transport.is_closing():
            return
        silent = self.loop.time() - self._last_received
        if silent >= interval + timeout:
            self.drop("it did not reply to a ping")
            return
        if silent >= interval:
            self.send_ping(b"")
        self._keepalive = self.loop.call_later(min(interval, interval + timeout - silent), self.start_pings)

    def send_ping(self, content: bytes) -> None:
        """Send a ping, after what was written before."""
        if self.writable:
            self.protocol.send_ping(content)
            self.send_data()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the socket."""
        super().connection_made(transport)
        self._pool.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop counting the socket."""
        for timer in (self._keepalive, self._closing):
            if timer is not None:
                timer.cancel()
        self._pool.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Receive bytes within the limits; an HTTP method that the library drops silently gets a response."""
        self._last_received = self.loop.time()
        self._received += len(data)
        if not self._authenticated and self._received > MAX_BYTES_BEFORE_AUTHENTICATION:
            self.drop("it sent too much before it was authenticated")
        elif self.protocol.state is State.CONNECTING and data.startswith(_OTHER_METHODS):
            self.transport.write(_NOT_FOUND)
            self.transport.close()
        else:
            super().data_received(data)
            self._has_backlog()  # the library replies to pings even if the peer does not read
            # The peer may keep its end open for so long after a close frame was sent.
            if self._closing is None and self.protocol.close_expected():
                self._closing = self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    def process_event(self, event: Event) -> None:
        """Process a frame, unless its message has too many fragments."""
        if isinstance(event, Frame) and event.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            self._fragments = 0 if event.fin else self._fragments + 1
            if self._fragments > MAX_FRAGMENTS:
                self.drop("it sent a message in too many fragments")
                return
        elif isinstance(event, Frame) and event.opcode is Opcode.PONG:
            self.on_pong(bytes(event.data))
        super().process_event(event)

    def _has_backlog(self) -> bool:
        """Drop a peer that does not read; return whether it was dropped."""
        if self.transport.get_write_buffer_size() <= self._limits.backlog_bytes:
            return False
        self.drop("it does not read its output")
        return True


class SocketPool:
    """The open sockets of a server.

    When there are too many, the one that has waited longest for authentication is dropped: a well-behaved client
    authenticates at once.

    Args:
        connections: How many sockets may be authenticated.
    """

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._waiting: dict[Socket, None] = {}
        self._authenticated: set[Socket] = set()

    @property
    def is_full(self) -> bool:
        """Whether no further client can connect."""
        return len(self._authenticated) >= self._connections

    def abort_silent(self) -> None:
        """Abort the sockets whose clients have not sent their HTTP request: the library would wait for it."""
        for socket in self._waiting:
            if socket.protocol.state is State.CONNECTING:
                socket.transport.abort()

    def add(self, socket: Socket) -> None:
        """Count a new socket."""
        self._waiting[socket] = None
        if len(self._waiting) > max(SPARE_SOCKETS, self._connections - len(self._authenticated)):
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.drop("there are too many connections, and it has waited longest to authenticate")

    def on_authenticated(self, socket: Socket) -> None:
        """Count a socket as authenticated."""
        if socket in self._waiting:  # it may be closed already, and this its last message
            del self._waiting[socket]
            self._authenticated.add(socket)

    def discard(self, socket: Socket) -> None:
        """Stop counting a socket."""
        self._waiting.pop(socket, None)
        self._authenticated.discard(socket)


def affordable(connections: int) -> int:
    """Return how many of the connections the process can have, as each is an open file."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return connections
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        connections if files == resource.RLIM_INFINITY else min(connections, max(SPARE_SOCKETS, files - RESERVED_FILES))
    )
