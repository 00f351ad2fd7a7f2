"""One TCP connection, as the library makes it and as `connection_handler` writes to it: a WebSocket or an HTTP request.

Requests with a body, which WebSocket libraries do not read, are passed to what `server` names for them.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode
from websockets.protocol import State

from lmstudio_integrations.emulator.server.context import ServerState
from lmstudio_integrations.emulator.server.http_requests import response, unexpected

logger: logging.Logger = logging.getLogger(__name__)

REQUEST_TIMEOUT = 10.0
"""Seconds until the request of a connection must have arrived."""

_MOST_BYTES_OF_STRANGERS = 64 * 1024
"""Bytes that a client may send before it has authenticated; its frame of credentials has 4 kB at most."""

MOST_HEAD_BYTES = 64 * 1024
"""Bytes of the first line and the headers of a request."""

_METHOD = re.compile(rb"[A-Za-z-]{0,20}")
_HEADERS_OF_A_BODY = re.compile(rb"\r\n(?:content-length|transfer-encoding):[^\r\n]*", re.IGNORECASE)


class RequestWithBody(Protocol):
    """Reads one request with a body from its connection, and answers it there."""

    def receive(self, data: bytes, /) -> None:
        """Receive bytes."""

    def cancel(self) -> None:
        """End; nobody waits for an answer any more."""


class Socket(ServerConnection):
    """One TCP connection: a WebSocket, or one HTTP request.

    Args:
        state: The server's state.
        begin_post: Makes what reads and answers a request with a body; `None` if the server answers none.
        arguments: Passed by the library, as `settings`.
    """

    def __init__(
        self,
        *arguments: Any,
        state: ServerState,
        begin_post: "Callable[[Socket], RequestWithBody | None]",
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        self._state = state
        self._begin_post = begin_post
        self._head: bytes | None = b""
        """What has arrived, until it is known who reads it."""
        self._post: RequestWithBody | None = None
        self._is_read_by_library = False
        self.is_half_closed: bool = False
        self.is_admitted: bool = False
        """Whether the client has authenticated; before that, it may send little."""
        self._bytes_of_stranger = 0

    @property
    def writable(self) -> bool:
        """Whether data can still be written."""
        return self.protocol.state is State.OPEN and not self.is_half_closed and not self.transport.is_closing()

    def write(self, frames: list[str]) -> None:
        """Send frames in one write, unless too much earlier output is still unread."""
        self._drop_if_unread()
        if not self.writable:
            return
        for frame in frames:
            self.protocol.send_text(frame.encode())
        self.transport.write(b"".join(self.protocol.data_to_send()))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin. The library's own timeout would also limit how long a request with a body may be answered."""
        super().connection_made(transport)
        self._deadline = self._state.clock.call_later(REQUEST_TIMEOUT, self._abort_if_silent)

    def data_received(self, data: bytes) -> None:
        """Receive bytes. What follows a request that is answered, such as its body or another request, is dropped."""
        if self._post is not None:
            self._post.receive(data)
        elif self._head is not None:
            self._head += data
            self._begin(self._head)
        elif self._is_read_by_library:
            self._limit_strangers(data)
            super().data_received(data)
            self._drop_if_unread()  # the library replies to pings

    def _begin(self, head: bytes) -> None:
        """Let the request be read by what reads such ones, once its headers have arrived.

        The library takes every method for GET, and does not respond to a request with a body or with another behind it.
        """
        found = _METHOD.match(head)
        method = b"" if found is None else found[0]
        end = head.find(b"\r\n\r\n") + 4
        is_request, is_whole = head.startswith(method + b" "), end > 3
        if head == method or (is_request and not is_whole and len(head) <= MOST_HEAD_BYTES):
            return
        self._head = None
        if is_request and method == b"POST":
            self._post = self._begin_post(self)
        if self._post is not None:
            self._post.receive(head)
        elif is_request and method != b"GET":
            path = head.split(b"\r\n")[0].split(b" ")[1]
            self.end_with(response(*unexpected(method.decode(), path.decode("latin-1"))), is_whole=False)
        else:
            self._is_read_by_library = not is_whole or b"\r\nupgrade:" in head[:end].lower()
            super().data_received(head if self._is_read_by_library else _HEADERS_OF_A_BODY.sub(b"", head[:end]))

    def end_with(self, last: bytes, *, is_whole: bool = True) -> None:
        """Send a response, and close the connection; if the request is not whole, once the client closes it.

        Closing it earlier would reset it while the client sends, which might then not see the response.
        """
        self._post = None
        self.transport.write(last)
        if is_whole:
            self.transport.close()
        else:
            self.transport.write_eof()

    def stop_deadline(self) -> None:
        """Wait for as long as it takes; the request has arrived."""
        self._deadline.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """End; nobody waits for an answer any more."""
        self.stop_deadline()
        if self._post is not None:
            self._post.cancel()
            self._post = None  # it refers to this, so its body would stay in memory until garbage is collected
        super().connection_lost(exc)
        if self.protocol.parser_exc is not None:
            self.protocol.parser_exc.__traceback__ = None  # the same: it refers to the last frame

    def _limit_strangers(self, data: bytes) -> None:
        """Close the socket of a client that sends much and has not authenticated, before anything is parsed."""
        if self.is_admitted or self.request is None:  # of the request itself, the library limits each line
            return
        self._bytes_of_stranger += len(data)
        if self._bytes_of_stranger > _MOST_BYTES_OF_STRANGERS and self.protocol.state is State.OPEN:
            text = f"more than {_MOST_BYTES_OF_STRANGERS} bytes before it had authenticated"
            self.protocol.fail(CloseCode.MESSAGE_TOO_BIG, text)

    def _drop_if_unread(self) -> None:
        if self.transport.get_write_buffer_size() > self._state.limits.backlog_bytes:
            logger.warning("closed the connection of %s: it does not read its output", self.remote_address)
            self.transport.abort()

    def _abort_if_silent(self) -> None:
        if self.protocol.state is State.CONNECTING:
            self.transport.abort()
