"""The listening server: HTTP requests, namespaces, connections (protocol §1, §2.5)."""

import asyncio
import contextlib
import http
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, get_args
from weakref import WeakSet

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.protocol import State

from lmstudio_integrations._discreet import server_logger
from lmstudio_integrations.emulator.admission import Admission
from lmstudio_integrations.emulator.connection import Connection
from lmstudio_integrations.emulator.context import Hub
from lmstudio_integrations.emulator.handlers import SERVED
from lmstudio_integrations.emulator.handlers.system import version
from lmstudio_integrations.protocol.endpoints import Namespace

_CLOSE_TIMEOUT = 2.0
"""Seconds that a client has to answer when its socket is closed."""

_TURNS_OF_ACCEPTING = 4
"""Turns of the event loop from accepting a socket to its handler."""

_NAMESPACES: dict[str, Namespace] = {f"/{name}": name for name in get_args(Namespace) if name in SERVED}

_PAGES: dict[str, Callable[[], object]] = {
    "/lmstudio-greeting": lambda: {"lmstudio": True},
    "/lms-status": lambda: {"package": "lmstudio", "version": version()},
}
"""What a plain GET gets (protocol §1.3)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server puts up with.

    Attributes:
        message_bytes: The largest frame that is taken; an image comes as one, in base64.
        backlog_bytes: What is kept for a client that does not read, before its socket is closed.
        connections: How many sockets may be open at once.
    """

    message_bytes: int = 256 * 1024 * 1024
    backlog_bytes: int = 64 * 1024 * 1024
    connections: int = 4096


USUAL_LIMITS = Limits()


class Server:
    """Serves one hub on one port, from `open` to `close`.

    Args:
        hub: The state that all connections share.
        admission: Who may come in.
        host: The address to listen on.
        port: The port; 0 takes a free one, and of several the first free one is taken.
        origins: Browser origins that may connect; every other one is refused.
        limits: What it puts up with.
    """

    def __init__(
        self,
        hub: Hub,
        admission: Admission,
        *,
        host: str = "127.0.0.1",
        port: int | Sequence[int] = 0,
        origins: Collection[str] = (),
        limits: Limits = USUAL_LIMITS,
    ) -> None:
        self.host = host
        self.port: int = 0
        self.connections: set[Connection] = set()
        self._ports = (port,) if isinstance(port, int) else tuple(port)
        self._hub = hub
        self._admission = admission
        self._origins = frozenset(origins)
        self._limits = limits
        self._listener: WebSocketServer | None = None
        self._accepted: WeakSet[ServerConnection] = WeakSet()

    async def open(self) -> None:
        """Listen.

        Raises:
            OSError: If the port is taken, or all of them are.
        """
        *others, last = self._ports
        for port in others:
            with contextlib.suppress(OSError):
                return await self._listen(port)
        return await self._listen(last)

    async def close(self) -> None:
        """Close all sockets, and wait until the work for them has ended."""
        assert self._listener is not None, "the server listens"
        for connection in self.connections:
            connection.hang_up()
        self._listener.close()
        await self._listener.wait_closed()
        await self._close_latecomers()

    async def _close_latecomers(self) -> None:
        """Close sockets that were accepted while the listener was closing, which nobody would close after it."""
        for _ in range(_TURNS_OF_ACCEPTING):
            await asyncio.sleep(0)
        late = [socket for socket in self._accepted if not socket.transport.is_closing()]
        for socket in late:
            socket.transport.abort()
        if late:
            await asyncio.wait([asyncio.ensure_future(socket.wait_closed()) for socket in late], timeout=_CLOSE_TIMEOUT)

    def _accept(self, *arguments: Any, **settings: Any) -> ServerConnection:
        socket = _Socket(*arguments, **settings)
        self._accepted.add(socket)
        return socket

    async def _listen(self, port: int) -> None:
        self._listener = await serve(
            self._serve,
            self.host,
            port,
            process_request=self._process_request,
            compression=None,
            ping_interval=None,
            close_timeout=_CLOSE_TIMEOUT,
            max_size=self._limits.message_bytes,
            create_connection=self._accept,  # type: ignore[arg-type]  # any maker will do, it is only called
            server_header=None,
            logger=server_logger,
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    def _process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        """Answer what is not for a namespace; `None` lets the socket be opened."""
        path = request.path.partition("?")[0]
        refusal = self._refusal(request, path)
        if refusal is not None:
            status, reason = refusal
            return socket.respond(status, f"{reason}\n")
        return _json(socket, _PAGES[path]()) if path in _PAGES else None

    def _refusal(self, request: Request, path: str) -> tuple[http.HTTPStatus, str] | None:
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self._origins:
            return http.HTTPStatus.FORBIDDEN, f"the origin {origin} is not allowed"
        if path in _PAGES:
            return None
        if path not in _NAMESPACES:
            return http.HTTPStatus.NOT_FOUND, f"there is nothing at {path}"
        if "Upgrade" not in request.headers:
            return http.HTTPStatus.UPGRADE_REQUIRED, "this is a WebSocket endpoint"
        if len(self.connections) >= self._limits.connections:
            return http.HTTPStatus.SERVICE_UNAVAILABLE, "there are too many connections"
        return None

    async def _serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None, "the handshake is done"
        namespace = _NAMESPACES[socket.request.path.partition("?")[0]]
        connection = Connection(socket, namespace, self._hub, self._admission, max_backlog=self._limits.backlog_bytes)
        self.connections.add(connection)
        self._hub.ledger.announce()
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)
            self._hub.ledger.announce()


class _Socket(ServerConnection):
    """A socket that answers other methods than GET, too; the library hangs up on them without a word."""

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it is the start of a request that no page takes."""
        if self.protocol.state is State.CONNECTING and data.startswith(_OTHER_METHODS):
            self.transport.write(_NOT_FOUND)
            self.transport.close()
        else:
            super().data_received(data)


_OTHER_METHODS = (b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ", b"HEAD ")
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def _json(socket: ServerConnection, value: object) -> Response:
    response = socket.respond(http.HTTPStatus.OK, json.dumps(value, separators=(",", ":")))
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "application/json"
    return response
