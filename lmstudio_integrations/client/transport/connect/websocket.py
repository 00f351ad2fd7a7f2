"""The socket: that of `websockets`, but whole messages go straight to the session. Imported with the first connection.

The library parses frames in ten calls, and puts them into a queue, from which a coroutine reads them one by one. Both
cost more than everything else that happens to a fragment. It keeps the handshake, pings, the close and fragmented
messages. `opening.py` makes the socket, and `socket_session.py` owns it.
"""

import asyncio
import contextlib
import math
import time

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, PayloadTooBig, WebSocketException
from websockets.frames import Frame
from websockets.protocol import Event, State

from lmstudio_integrations.client.transport.connect.framing import MASKED, MESSAGES, frames
from lmstudio_integrations.client.transport.connect.probe import redirected
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.protocol.session import ClientSession

_END_OF_HEAD = b"\r\n\r\n"


class Connect(connect):
    """Opens a socket to the address that the user gave, and to no other, because credentials are sent next."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the error; the library would return the address to follow."""
        return exc


def redirect_of(error: Exception, url: str) -> str | None:
    """Return a clause that says where the response to a handshake redirects to; `None` if it does not redirect."""
    if not isinstance(error, InvalidStatus) or error.response.status_code // 100 != 3:
        return None
    location = error.response.headers.get("Location")
    return None if location is None else redirected(url, location)


class Socket(ClientConnection):
    """Delivers messages to the session as they arrive, once the server has accepted this client.

    Until then, and permanently after the first fragmented message, they take the library's way to `recv`, because none
    may overtake another.
    """

    session: ClientSession | None = None
    """Receives the messages."""

    received_at: float = 0.0
    """When anything was last received."""

    _received_wall: float = 0.0
    """The same in wall-clock time, which continues while the machine sleeps."""

    max_size: float = math.inf
    """The largest message, in bytes; the library has the same limit."""

    _pong: asyncio.Future[None] | None = None
    _unread: bytearray | None = None
    """The beginning of the next frame. `None` while the library reads everything by itself."""

    @property
    def rejected_size(self) -> int | None:
        """How large the message is for which the connection was closed; `None` if it was not for one."""
        problem = self.protocol.parser_exc
        return (problem.size or 0) + (problem.current_size or 0) if isinstance(problem, PayloadTooBig) else None

    def quiet_for(self) -> float:
        """Return the seconds since anything was received, including those in which the machine slept."""
        return max(time.monotonic() - self.received_at, time.time() - self._received_wall)

    async def responds_to_ping(self, limit: float) -> bool:
        """Send a ping; return whether the server answers within a limit of seconds.

        Any complete frame counts as an answer. Received bytes restart the limit, because the pong may be queued behind
        a long response. Bytes alone do not count, because a frame may announce more of them than ever arrive.
        """
        pong = self._pong = self._pong or self.loop.create_future()
        with contextlib.suppress(Exception):  # the reader notices a broken socket
            self.protocol.send_ping(b"")
            self.send_data()
        pinged_at = time.monotonic()
        while not pong.done():
            remaining = max(pinged_at, self.received_at) + limit - time.monotonic()
            if remaining <= 0:
                return False
            await asyncio.wait([pong], timeout=remaining)
        return True

    def write_frames(self, frames: list[str]) -> None:
        """Send text frames: like `send`, but in one write and without `drain`, because nothing here may wait."""
        try:
            for frame in frames:
                self.protocol.send_text(frame.encode())
            self.transport.write(b"".join(self.protocol.data_to_send()))
        except (OSError, RuntimeError, WebSocketException):
            pass  # the reader notices a broken socket

    def data_received(self, data: bytes) -> None:
        """Receive bytes. Callers are woken after all of them, so that one wake-up delivers the whole batch."""
        self.received_at, self._received_wall = time.monotonic(), time.time()
        io = IOThread.current()
        io.hold_wakes()
        try:
            if self._unread is None:
                self._receive_head(data)
            else:
                self._receive_frames(data, self._unread)
        finally:
            io.release_wakes()
        if self.protocol.close_rcvd is not None or self.protocol.parser_exc is not None:
            # The library has sent its own, and would wait for the server to close the TCP connection, perhaps forever.
            # `close` would wait until the server has read all that was written.
            self.transport.abort()

    def eof_received(self) -> None:
        """End the socket: the server sends nothing more."""
        super().eof_received()
        self.transport.abort()

    def _receive_head(self, data: bytes) -> None:
        """Receive bytes of the response to the handshake, or any bytes of a socket that the library reads alone."""
        was_open = self.response is not None
        super().data_received(data)
        if was_open or self.protocol.state is not State.OPEN:
            return
        # Where frames begin is only known if none came with the response, and none should: the client speaks first.
        _, end, frames_too = data.partition(_END_OF_HEAD)
        if end and not frames_too and not self.debug:  # the library logs each frame that it reads
            self._unread = bytearray()

    def _receive_frames(self, data: bytes, unread: bytearray) -> None:
        """Deliver the messages to the session. The library gets all other frames, each of them whole."""
        if unread:
            unread += data
            complete, is_too_large = frames(unread, self.max_size)
            if not (complete or is_too_large):
                return
            data = bytes(unread)
            unread.clear()
        else:
            complete, is_too_large = frames(data, self.max_size)
        session, end = self._direct_session(), 0
        for start, payload, end in complete:
            if session is not None and data[start] in MESSAGES and data[start + 1] < MASKED:
                if self._pong is not None:
                    self._end_ping(self._pong)
                session.receive(data[payload:end], self.received_at)
            else:
                super().data_received(data[start:end])
                session = self._direct_session()
        if is_too_large:
            self._unread = None
            super().data_received(data[end:])  # the library rejects it, whether it is complete or not
        else:
            unread += data[end:]

    def _direct_session(self) -> ClientSession | None:
        """Return the session if messages may be delivered to it."""
        session = self.session
        is_ready = session is not None and session.ready and self.protocol.state is State.OPEN
        return session if is_ready else None

    def process_event(self, event: Event) -> None:
        """Receive a frame that the library has read, or the response to the handshake."""
        if self._pong is not None:
            self._end_ping(self._pong)
        if isinstance(event, Frame) and not event.fin:
            self.session = None
        super().process_event(event)

    def _end_ping(self, pong: asyncio.Future[None]) -> None:
        pong.set_result(None)
        self._pong = None
