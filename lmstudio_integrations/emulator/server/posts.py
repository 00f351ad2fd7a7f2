"""HTTP requests with a body, which WebSocket libraries do not read (docs/protocol.md#decisions).

`server.py` imports this on first use; the handlers are in `handlers/decisions.py`.
"""

import asyncio
import http.client
import io
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias

from lmstudio_integrations.emulator.server.context import ServerState
from lmstudio_integrations.emulator.server.http_requests import error_body, response, unexpected
from lmstudio_integrations.emulator.server.sockets import MOST_HEAD_BYTES, Socket

if TYPE_CHECKING:
    from lmstudio_integrations.emulator.server.server import Server

PostHandler: TypeAlias = Callable[[ServerState, Any], Awaitable[dict[str, Any]]]
"""Answers a request with a body, which is JSON."""

logger: logging.Logger = logging.getLogger(__name__)


class HttpError(Exception):
    """A request fails; the client gets this error.

    Args:
        status: The status of the response.
        kind: The `type` of the error.
        message: What is wrong, in one sentence.
        code: Its `code`; `None` is the status.
    """

    def __init__(self, status: HTTPStatus, kind: str, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code: str | int = code or int(status)

    def to_bytes(self) -> bytes:
        """Return the response."""
        return response(error_body(self.kind, str(self), self.code), self.status)


def bad_request(message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> HttpError:
    """Return the error for a request that is wrong."""
    return HttpError(status, "invalid_request_error", message)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request that has arrived."""

    path: str
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        """Return the body.

        Raises:
            HttpError: If it is not JSON.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise bad_request(f"the body is not JSON: {error}") from error


class RequestReader:
    """Reads one request.

    Args:
        max_bytes: The size of the largest body.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._data = bytearray()
        self.head: tuple[str, http.client.HTTPMessage, int] | None = None
        """The path, the headers and the size of the body, once they have arrived; the body follows."""

    def feed(self, data: bytes) -> HttpRequest | None:
        """Receive bytes; return the request once it is complete.

        Raises:
            HttpError: If it cannot be read.
        """
        self._data += data
        if self.head is None:
            head, end, body = self._data.partition(b"\r\n\r\n")
            if len(head) > MOST_HEAD_BYTES:
                raise bad_request("the headers are too large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            if not end:
                return None
            self.head, self._data = self._read(bytes(head)), body
        path, headers, size = self.head
        if len(self._data) < size:
            return None
        whole, self._data = self._data, bytearray()
        return HttpRequest(path, headers, bytes(memoryview(whole)[:size]))

    def _read(self, head: bytes) -> tuple[str, http.client.HTTPMessage, int]:
        first, _, lines = head.partition(b"\r\n")
        try:
            path = first.split()[1].decode("ascii").partition("?")[0]
            headers = http.client.parse_headers(io.BytesIO(lines + b"\r\n\r\n"))
            size = int(headers["Content-Length"])
        except (http.client.HTTPException, ValueError, IndexError, TypeError):
            raise bad_request("the request needs a Content-Length", HTTPStatus.LENGTH_REQUIRED) from None
        if size > self._max_bytes:
            raise bad_request(f"the body is larger than {self._max_bytes} bytes", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return path, headers, size


class Post:
    """One request with a body, on a connection of its own: it is read, then answered.

    Args:
        socket: The connection.
        server: Checks who asks.
        state: The state that all connections share.
        handlers: What answers, by path.
    """

    def __init__(
        self, socket: Socket, server: "Server", state: ServerState, handlers: Mapping[str, PostHandler]
    ) -> None:
        self._socket = socket
        self._server = server
        self._state = state
        self._handlers = handlers
        self._reader = RequestReader(state.limits.message_bytes)
        self._answering: asyncio.Task[None] | None = None

    def receive(self, data: bytes) -> None:
        """Receive bytes, and begin to answer once the request is complete; one that is refused is not read on."""
        if self._answering is not None:
            return
        try:
            request = self._reader.feed(data)
        except HttpError as error:
            self._socket.end_with(error.to_bytes(), is_whole=False)
            return
        if refusal := self._refusal():
            self._socket.end_with(refusal, is_whole=request is not None)
        elif request is not None:
            self._socket.stop_deadline()
            self._answering = self._socket.loop.create_task(self._respond(request))

    def cancel(self) -> None:
        """End; nobody waits for an answer any more."""
        if self._answering is not None:
            self._answering.cancel()
            self._answering = None  # its end refers to this; see `Socket.connection_lost`

    async def _respond(self, request: HttpRequest) -> None:
        self._socket.end_with(await self._answer(request))

    def _refusal(self) -> bytes | None:
        """Return the response to a request of which the headers say that it gets no answer."""
        if self._reader.head is None:
            return None
        path, headers, _ = self._reader.head
        if path not in self._handlers:
            return response(*unexpected("POST", path))
        if refused := self._server.refusal(path, headers):
            status, reason = refused
            return bad_request(reason, status).to_bytes()
        if why := self._server.authenticator.why_token_is_rejected(headers.get("Authorization", "")):
            return HttpError(HTTPStatus.UNAUTHORIZED, "invalid_request", why, "invalid_api_key").to_bytes()
        return None

    async def _answer(self, request: HttpRequest) -> bytes:
        try:
            await self._state.simulate_latency()
            return response(await self._handlers[request.path](self._state, request.json()))
        except HttpError as error:
            return error.to_bytes()
        except Exception as error:  # a defect of the emulator must not leave the client without a response
            logger.exception("the handler of %s failed", request.path)
            return HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, "server_error", repr(error)).to_bytes()
