"""What is said over HTTP, beside what the WebSocket library says itself. Used by `server.py` and `sockets.py`."""

import json
from http import HTTPStatus
from typing import Any


def error_body(kind: str, message: str, code: str | int) -> dict[str, Any]:
    """Return what the response to a request that fails says."""
    return {"error": {"code": code, "type": kind, "message": message}}


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
