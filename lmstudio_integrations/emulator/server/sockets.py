"""One TCP connection, as the library makes it and as `connection_handler` writes to it: a WebSocket or an HTTP request.

Requests with a body, which WebSocket libraries do not read, are read here and answered by `server`.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

from lmstudio_integrations.emulator.server import tcp
from lmstudio_integrations.emulator.server.context import ServerState
from lmstudio_integrations.emulator.server.http_requests import (
    HttpError,
    HttpRequest,
    RequestReader,
    response,
    unexpected,
)

logger: logging.Logger = logging.getLogger(__name__)

REQUEST_TIMEOUT = 10.0
"""Seconds until the request of a connection must have arrived."""

_OTHER_METHODS = (b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ", b"HEAD ")


class Socket(ServerConnection):
    """One TCP connection: a WebSocket, or one HTTP request.

    Args:
        state: The server's state.
        answer: Answers a request with a body.
        arguments: Passed by the library, as `settings`.
    """

    def __init__(
        self,
        *arguments: Any,
        state: ServerState,
        answer: Callable[[HttpRequest], Coroutine[Any, Any, bytes]],
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        self._state = state
        self._answer = answer
        self._reader: RequestReader | None = None
        self._answering: asyncio.Task[None] | None = None
        self.is_half_closed: bool = False

    @property
    def writable(self) -> bool:
        """Whether data can still be written."""
        return self.protocol.state is State.OPEN and not self.is_half_closed and not self.transport.is_closing()

    def write(self, frames: list[str]) -> None:
        """Send frames in one write, unless too much earlier output is still unread."""
        if not self.writable:
            return
        if self.transport.get_write_buffer_size() > self._state.limits.backlog_bytes:
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
        tcp.reset(self.transport)

    def abort_if_waited_for(self) -> None:
        """Abort the connection if closing it would wait: for its HTTP request, or for a client that does not read."""
        if self.protocol.state is State.CONNECTING or self.is_half_closed or self.paused:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin. The library's own timeout would also limit how long a request with a body may be answered."""
        super().connection_made(transport)
        self._deadline = self._state.clock.call_later(REQUEST_TIMEOUT, self._abort_if_silent)

    def data_received(self, data: bytes) -> None:
        """Receive bytes; requests with a body, and methods that the library drops silently, get a response."""
        if self._reader is not None:
            self._read(data)
        elif self.protocol.state is not State.CONNECTING:
            super().data_received(data)
        elif data.startswith(b"POST "):
            self._reader = RequestReader(self._state.limits.message_bytes)
            self._read(data)
        elif data.startswith(_OTHER_METHODS):
            method, path = data.decode("latin-1").split(" ")[:2]
            self.transport.write(response(*unexpected(method, path)))
            self.transport.close()
        else:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; nobody waits for an answer any more."""
        self._deadline.cancel()
        if self._answering is not None:
            self._answering.cancel()
        super().connection_lost(exc)

    def _abort_if_silent(self) -> None:
        if self.protocol.state is State.CONNECTING and self._answering is None:
            self.transport.abort()

    def _read(self, data: bytes) -> None:
        """Read a request with a body, and begin to answer it."""
        assert self._reader is not None, "it was made for the first bytes"
        try:
            request = None if self._answering else self._reader.feed(data)
        except HttpError as error:
            self.transport.write(error.to_bytes())
            self.transport.close()
        else:
            if request is not None:
                self._answering = self.loop.create_task(self._respond(request))

    async def _respond(self, request: HttpRequest) -> None:
        answer = await self._answer(request)
        self.transport.write(answer)
        self.transport.close()
