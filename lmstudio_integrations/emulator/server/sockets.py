"""A socket of the `websockets` library to which frames are written without waiting, and that can be broken.

Used by `ConnectionHandler`. Everything here belongs to the emulator's event loop.
"""

import logging
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from lmstudio_integrations.emulator.testing.tcp import reset

logger: logging.Logger = logging.getLogger(__name__)

_OTHER_METHODS = (b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ", b"HEAD ")
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Socket(ServerConnection):
    """One TCP connection.

    Args:
        backlog_bytes: How much of the output may be unread; a client that leaves more unread is disconnected.
        arguments: Passed by the library, as `settings`.
    """

    def __init__(self, *arguments: Any, backlog_bytes: int, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._backlog_bytes = backlog_bytes
        self.is_half_closed: bool = False
        self.on_pong: Callable[[bytes], None] = lambda _: None
        """Called with the content of each pong."""

    @property
    def writable(self) -> bool:
        """Whether data can still be written."""
        return self.protocol.state is State.OPEN and not self.is_half_closed and not self.transport.is_closing()

    def write(self, frames: list[str]) -> None:
        """Send frames in one write, unless too much earlier output is still unread."""
        if not self.writable:
            return
        if self.transport.get_write_buffer_size() > self._backlog_bytes:
            logger.warning("closed the connection of %s: it does not read its output", self.remote_address)
            self.transport.abort()
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

    def send_ping(self, content: bytes) -> None:
        """Send a ping, after what was written before."""
        if self.writable:
            self.protocol.send_ping(content)
            self.send_data()

    def abort_if_waited_for(self) -> None:
        """Abort the connection if closing it would wait: for its HTTP request, or for a client that does not read."""
        if self.protocol.state is State.CONNECTING or self.is_half_closed or self.paused:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Receive bytes; an HTTP method that the library drops silently gets a response."""
        if self.protocol.state is State.CONNECTING and data.startswith(_OTHER_METHODS):
            self.transport.write(_NOT_FOUND)
            self.transport.close()
        else:
            super().data_received(data)

    def process_event(self, event: Event) -> None:
        """Process a frame."""
        if isinstance(event, Frame) and event.opcode is Opcode.PONG:
            self.on_pong(bytes(event.data))
        super().process_event(event)
