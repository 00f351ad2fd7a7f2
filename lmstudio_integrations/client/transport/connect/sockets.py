"""The socket of a WebSocket: a connection of `websockets`, with what a session needs besides.

`opening.py` makes it, and `socket_session.py` reads from it and writes to it.
"""

import asyncio
import time
from collections.abc import Callable

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import PayloadTooBig, WebSocketException
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.protocol import Event

READ_SIZE = 64 * 1024
"""Bytes that are read at once."""

_HEAD_END = b"\r\n\r\n"
"""How the response to the handshake ends."""

_TEXT, _TWO_BYTES = 0x81, 126
"""The first byte of a text frame that is a whole message; the second byte if the size follows (RFC 6455, 5.2)."""


class Socket(ClientConnection):
    """A connection of the library that knows when anything was received, and hands messages over at once.

    Bytes of a message that is still incomplete show life, too.
    """

    received_at: float = 0.0
    """When anything was last received."""

    _received_wall: float = 0.0
    """The same in wall-clock time, which continues while the machine sleeps."""

    on_messages: Callable[[list[bytes]], None] | None = None
    """Receives the messages that arrive together. While it is `None`, they are read with `read`."""

    _most_bytes: int = 0
    """The size up to which a frame is read without the library, which checks the limit of the user."""

    _messages: int = 0
    """How many messages were received."""

    _batch: list[bytes]

    _unframed: int | None = None
    """How many bytes of an incomplete frame have arrived; `None` until the handshake has ended."""

    @property
    def rejected_size(self) -> int | None:
        """How large the message is for which the connection was closed; `None` if it was not for one."""
        problem = self.protocol.parser_exc
        if not isinstance(problem, PayloadTooBig):
            return None
        fields = vars(problem)
        read = fields.get("current_size", fields.get("cur_size"))  # before websockets 16, its name was shorter
        return (problem.size or 0) + (read or 0)

    def read_small(self, max_message_bytes: int | None) -> None:
        """Read at most 64 KB at once, after the handshake.

        From 128 KB on, the C library asks the system for the memory of each read, which costs 100 µs.

        Args:
            max_message_bytes: The size up to which the user accepts a message; `None` for any.
        """
        self.transport.max_size = READ_SIZE  # type: ignore[attr-defined]
        self._most_bytes = min(READ_SIZE, max_message_bytes or READ_SIZE)

    def quiet_for(self) -> float:
        """Return the seconds since anything was received, including those in which the machine slept."""
        return max(time.monotonic() - self.received_at, time.time() - self._received_wall)

    async def read(self) -> bytes:
        """Return the next message."""
        message = await self.recv(decode=False)
        self._messages += 1
        return message

    async def responds_to_ping(self, limit: float) -> bool:
        """Send a ping; return whether the server answers within a limit of seconds.

        A message counts as an answer. Received bytes restart the limit, because the pong may be queued behind a long
        response. Bytes alone do not count, because a frame may announce more of them than ever arrive.
        """
        pinged_at, read_before = time.monotonic(), self._messages
        pong = asyncio.ensure_future(self._pong())
        try:
            while not pong.done() and self._messages == read_before:
                remaining = max(pinged_at, self.received_at) + limit - time.monotonic()
                if remaining <= 0:
                    return False
                await asyncio.wait([pong], timeout=remaining)
            return not pong.done() or pong.result()
        finally:
            pong.cancel()

    async def _pong(self) -> bool:
        """Return whether a ping could be sent and was answered."""
        try:
            await (await self.ping())
        except (OSError, WebSocketException):
            return False  # the reader notices a broken socket
        return True

    def write_frames(self, frames: list[str]) -> None:
        """Send text frames: like `send`, but in one write and without `drain`, because nothing here may wait."""
        try:
            for frame in frames:
                self.protocol.send_text(frame.encode())
            self.transport.write(b"".join(self.protocol.data_to_send()))
        except (OSError, RuntimeError, WebSocketException):
            pass  # the reader notices a broken socket

    def process_event(self, event: Event) -> None:
        """Collect a whole message for `on_messages`.

        `recv` costs a turn of the loop for each batch, which is a fifth of a token that comes alone. It puts fragments
        together, though: from the first one on, it is what all messages are read with.
        """
        if isinstance(event, Frame) and self._unframed is not None:
            self._unframed -= _size_of(event)
        if self.on_messages is None or not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
        elif event.fin and event.opcode is not Opcode.CONT:
            self._messages += 1
            self._batch.append(bytes(event.data))
        else:
            self._deliver()
            self.on_messages = None
            super().process_event(event)

    def _deliver(self) -> None:
        batch, self._batch = self._batch, []
        if batch and self.on_messages is not None:
            self.on_messages(batch)

    def data_received(self, data: bytes) -> None:
        """Note when bytes arrive, and end the socket where the server has closed it."""
        self.received_at, self._received_wall = time.monotonic(), time.time()
        if self._unframed == 0 and self.on_messages is not None and len(data) <= self._most_bytes:
            message = whole_message(data)
            if message is not None:
                self._messages += 1
                self.on_messages([message])
                return
        self._batch, is_shaking_hands = [], self.response is None
        if self._unframed is not None:
            self._unframed += len(data)
        super().data_received(data)
        self._deliver()
        if is_shaking_hands and data.startswith(b"HTTP/") and data.find(_HEAD_END) == len(data) - len(_HEAD_END):
            self._unframed = 0  # this was the whole head of the response, and nothing else
        if self.protocol.close_rcvd is not None or self.protocol.parser_exc is not None:
            # The library has sent its own, and would wait for the server to close the TCP connection, perhaps forever.
            # `close` would wait until the server has read all that was written.
            self.on_messages = None  # what follows the end is none
            self.transport.abort()

    def eof_received(self) -> None:
        """End the socket: the server sends nothing more."""
        super().eof_received()
        self.transport.abort()


def whole_message(data: bytes) -> bytes | None:
    """Return the message if the data are one frame with a whole message of less than 64 KB, from a server.

    The library takes 80 µs longer for a token that comes alone, because its code is in no cache then: a seventh of what
    such a token costs in LangChain.
    """
    if len(data) <= 4 or data[0] != _TEXT:
        return None
    if data[1] < _TWO_BYTES:
        return data[2:] if len(data) == 2 + data[1] else None
    is_whole = data[1] == _TWO_BYTES and len(data) == 4 + int.from_bytes(data[2:4], "big")
    return data[4:] if is_whole else None


def _size_of(frame: Frame) -> int:
    """Return how many bytes a frame of a server has, at least."""
    size = len(frame.data)
    return size + (2 if size < _TWO_BYTES else 4 if size < 1 << 16 else 10)
