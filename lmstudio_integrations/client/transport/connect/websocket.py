"""The socket: that of `websockets`, which also knows when anything was received. Imported with the first connection.

`opening.py` makes the socket, and `socket_session.py` owns it.
"""

import asyncio
import time

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, PayloadTooBig, WebSocketException

from lmstudio_integrations.client.transport.connect.probe import redirected


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
    """A connection of the library that is watched: bytes of a message that is still incomplete show life, too."""

    received_at: float = 0.0
    """When anything was last received."""

    _received_wall: float = 0.0
    """The same in wall-clock time, which continues while the machine sleeps."""

    _messages: int = 0
    """How many messages were read."""

    @property
    def rejected_size(self) -> int | None:
        """How large the message is for which the connection was closed; `None` if it was not for one."""
        problem = self.protocol.parser_exc
        return (problem.size or 0) + (problem.current_size or 0) if isinstance(problem, PayloadTooBig) else None

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

    def data_received(self, data: bytes) -> None:
        """Note when bytes arrive, and end the socket where the server has closed it."""
        self.received_at, self._received_wall = time.monotonic(), time.time()
        super().data_received(data)
        if self.protocol.close_rcvd is not None or self.protocol.parser_exc is not None:
            # The library has sent its own, and would wait for the server to close the TCP connection, perhaps forever.
            # `close` would wait until the server has read all that was written.
            self.transport.abort()

    def eof_received(self) -> None:
        """End the socket: the server sends nothing more."""
        super().eof_received()
        self.transport.abort()
