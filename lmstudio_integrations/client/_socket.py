"""The socket: `websockets`' own, but for what becomes of a whole frame. Imported when the first one is opened.

The library puts frames into a queue, for a coroutine that takes them out one by one; that costs as much as everything
that is then done with a fragment, and a turn of the event loop for each packet.
"""

import time

from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

from lmstudio_integrations.client._io import IOThread
from lmstudio_integrations.protocol.session import ClientSession

_MESSAGES = (Opcode.TEXT, Opcode.BINARY)


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
