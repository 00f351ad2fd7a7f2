"""The socket: that of `websockets`, but complete frames go straight to the session. Imported with the first connection.

The library puts frames into a queue, from which a coroutine reads them one by one. That costs as much as everything
else that happens to a fragment, and one iteration of the event loop per packet. `opening.py` makes the socket, and
`socket_session.py` owns it.
"""

import asyncio
import contextlib
import time

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

from lmstudio_integrations.client.transport.greeting import redirected
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.protocol.session import ClientSession

_MESSAGES = (Opcode.TEXT, Opcode.BINARY)


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
    """Delivers frames to the session as they arrive, once the server has accepted this client.

    Until then, and permanently after the first fragmented message, frames take the library's way to `recv`, because no
    frame may overtake another.
    """

    session: ClientSession | None = None
    """Receives the frames."""

    received_at: float = 0.0
    """When anything was last received."""

    _received_wall: float = 0.0
    """The same in wall-clock time, which continues while the machine sleeps."""

    _pong: asyncio.Future[None] | None = None

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
        with contextlib.suppress(OSError, RuntimeError, WebSocketException):  # the reader notices a broken socket
            for frame in frames:
                self.protocol.send_text(frame.encode())
            self.transport.write(b"".join(self.protocol.data_to_send()))

    def data_received(self, data: bytes) -> None:
        """Receive bytes. Callers are woken after all of them, so that one wake-up delivers the whole batch."""
        self.received_at, self._received_wall = time.monotonic(), time.time()
        io = IOThread.current()
        io.hold_wakes()
        try:
            super().data_received(data)
        finally:
            io.release_wakes()
        if self.protocol.close_rcvd is not None:
            # The library has answered, and would wait for the server to close the TCP connection, perhaps forever.
            self.transport.close()

    def process_event(self, event: Event) -> None:
        """Receive a frame, or the response to the handshake."""
        if self._pong is not None:
            self._pong.set_result(None)
            self._pong = None
        session = self.session
        if session is not None and session.ready and isinstance(event, Frame):
            if not event.fin:
                self.session = None
            elif event.opcode in _MESSAGES:
                session.receive(bytes(event.data), self.received_at)
                return
        super().process_event(event)
