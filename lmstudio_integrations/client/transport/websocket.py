"""The socket: `websockets`' own, but for what becomes of a whole frame. Imported when the first one is opened.

The library puts frames into a queue, for a coroutine that takes them out one by one; that costs as much as everything
that is then done with a fragment, and a turn of the event loop for each packet.
"""

import asyncio
import contextlib
import time

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

from lmstudio_integrations.client.transport.greeting import redirected
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.protocol.session import ClientSession

_MESSAGES = (Opcode.TEXT, Opcode.BINARY)


class Connect(connect):
    """Opens a socket to the address that the user named, and to no other: the next step is to send credentials."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the error; the library would return the address to go to."""
        return exc


def redirect_of(error: Exception, url: str) -> str | None:
    """Return the clause that says where the response to a handshake redirects to; `None` if it does not."""
    if not isinstance(error, InvalidStatus) or error.response.status_code // 100 != 3:
        return None
    location = error.response.headers.get("Location")
    return None if location is None else redirected(url, location)


class Socket(ClientConnection):
    """Hands frames to the session as they come in, once the server has let this client in.

    Until then, and for good once a message has come in pieces, they go the library's way, to `recv`: no frame may
    overtake another.
    """

    session: ClientSession | None = None
    """Where the frames go."""

    heard_at: float = 0.0
    """When anything was last read."""

    _heard_on: float = 0.0
    """The same by the wall clock, which goes on while the machine sleeps."""

    _sign: asyncio.Future[None] | None = None

    def quiet_for(self) -> float:
        """Return the seconds since anything was read, those included in which the machine slept."""
        return max(time.monotonic() - self.heard_at, time.time() - self._heard_on)

    async def answers_ping(self, limit: float) -> bool:
        """Send a ping; return whether the other side answers within a limit of seconds.

        Any whole frame counts, and while bytes come the limit starts again: the pong may wait behind a long response.
        Bytes alone do not count, for a frame may announce more of them than ever come.
        """
        sign = self._sign = self._sign or self.loop.create_future()
        with contextlib.suppress(Exception):  # the reader of the socket notices a broken one
            self.protocol.send_ping(b"")
            self.send_data()
        asked_at = time.monotonic()
        while not sign.done():
            left = max(asked_at, self.heard_at) + limit - time.monotonic()
            if left <= 0:
                return False
            await asyncio.wait([sign], timeout=left)
        return True

    def data_received(self, data: bytes) -> None:
        """Receive what was read; callers are woken when all of it is, or the first packet would wake them too early."""
        self.heard_at, self._heard_on = time.monotonic(), time.time()
        io = IOThread.current()
        io.hold_wakes()
        try:
            super().data_received(data)
        finally:
            io.release_wakes()
        if self.protocol.close_rcvd is not None:
            # The library has answered, and would wait for the server to close the connection below, perhaps for ever.
            self.transport.close()

    def process_event(self, event: Event) -> None:
        """Take in a frame, or the response to the handshake."""
        if self._sign is not None:
            self._sign.set_result(None)
            self._sign = None
        session = self.session
        if session is not None and session.ready and isinstance(event, Frame):
            if not event.fin:
                self.session = None
            elif event.opcode in _MESSAGES:
                session.receive(bytes(event.data), self.heard_at)
                return
        super().process_event(event)
