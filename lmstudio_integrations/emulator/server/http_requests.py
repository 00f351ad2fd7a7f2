"""HTTP requests with a body, which WebSocket libraries do not read (docs/protocol.md#decisions).

`server.py` answers them.
"""

import http.client
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

_MOST_HEAD_BYTES = 64 * 1024


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

    @property
    def body(self) -> dict[str, Any]:
        """What the response says."""
        return {"error": {"code": self.code, "type": self.kind, "message": str(self)}}

    def to_bytes(self) -> bytes:
        """Return the response."""
        return response(self.body, self.status)


def bad_request(message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> HttpError:
    """Return the error for a request that is wrong."""
    return HttpError(status, "invalid_request_error", message)


def response(value: object, status: HTTPStatus = HTTPStatus.OK) -> bytes:
    """Return a response in JSON, after which the connection is closed."""
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def unexpected(method: str, path: str) -> tuple[dict[str, str], HTTPStatus]:
    """Return what is said of a request for something that is not there, with its status, which is rarely one of errors.

    See docs/protocol.md#http-apis.
    """
    status = HTTPStatus.NOT_FOUND if path.startswith("/api/v1/") else HTTPStatus.OK
    return {"error": f"Unexpected endpoint or method. ({method} {path})"}, status


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request that has arrived. The names of headers are in lower case."""

    path: str
    headers: Mapping[str, str]
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
        self._data = b""

    def feed(self, data: bytes) -> HttpRequest | None:
        """Receive bytes; return the request once it is complete.

        Raises:
            HttpError: If it cannot be read.
        """
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end or len(head) > _MOST_HEAD_BYTES:
            if len(head) > _MOST_HEAD_BYTES:
                raise bad_request("the headers are too large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return None
        first, _, lines = head.partition(b"\r\n")
        try:
            path = first.split()[1].decode("ascii").partition("?")[0]
            headers = http.client.parse_headers(io.BytesIO(lines + end))
            size = int(headers["Content-Length"])
        except (http.client.HTTPException, ValueError, IndexError, TypeError):
            raise bad_request("the request needs a Content-Length", HTTPStatus.LENGTH_REQUIRED) from None
        if size > self._max_bytes:
            raise bad_request(f"the body is larger than {self._max_bytes} bytes", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if len(body) < size:
            return None
        return HttpRequest(path, {name.lower(): value for name, value in headers.items()}, body[:size])
