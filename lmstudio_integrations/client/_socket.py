"""The socket: `websockets`' own, but for what becomes of a whole frame. Imported when the first one is opened.

The library puts frames into a queue, for a coroutine that takes them out one by one; that costs as much as everything
that is then done with a fragment, and a turn of the event loop for each packet.
"""

import time

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

from lmstudio_integrations.client._io import IOThread
from lmstudio_integrations.client._probe import redirected
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
    """Who takes the frames."""

    def data_received(self, data: bytes) -> None:
        """Take in what was read; callers are woken when all of it is, for who runs at the first packet waits twice."""
        io = IOThread.current()
        io.hold_wakes()
        try:
            super().data_received(data)
        finally:
            io.release_wakes()

    def process_event(self, event: Event) -> None:
        """Take in a frame, or the response to the handshake."""
        session = self.session
        if session is not None and session.ready and isinstance(event, Frame):
            if not event.fin:
                self.session = None
            elif event.opcode in _MESSAGES:
                session.receive(bytes(event.data), time.monotonic())
                return
        super().process_event(event)
