"""The listening server: HTTP requests, namespaces, connections (docs/protocol.md#transport).

Used by `emulator`. Each socket gets a `ConnectionHandler`.
"""

import contextlib
import errno
import http
import ipaddress
import json
import logging
import socket as sockets
from collections.abc import Callable, Collection, Sequence
from http.client import HTTPMessage
from typing import Any, get_args
from urllib.parse import urlsplit
from weakref import WeakSet

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.protocol import State

from lmstudio_integrations._support import environment
from lmstudio_integrations._support.leaves import MissingLeafError, door
from lmstudio_integrations._support.secrets import server_logger
from lmstudio_integrations.emulator.models.catalog import Catalog
from lmstudio_integrations.emulator.server.clients import Authenticator
from lmstudio_integrations.emulator.server.connection_handler import ConnectionHandler
from lmstudio_integrations.emulator.server.context import ServerState
from lmstudio_integrations.emulator.server.handlers import SERVED
from lmstudio_integrations.emulator.server.http_requests import error_body, unexpected
from lmstudio_integrations.emulator.server.sockets import RequestWithBody, Socket
from lmstudio_integrations.emulator.server.tcp import note_exhaustion_once, stop_accepting
from lmstudio_integrations.errors import LMStudioOSError
from lmstudio_integrations.protocol.endpoints import Namespace

logger: logging.Logger = logging.getLogger(__name__)

_NAMESPACES: dict[str, Namespace] = {f"/{name}": name for name in get_args(Namespace) if name in SERVED}

_PING_INTERVAL = 30.0
_PING_TIMEOUT = 60.0
_CLOSE_TIMEOUT = 2.0
"""Seconds between two pings, and that a client has to reply to a ping and to a close frame."""

_GREETING = "/lmstudio-greeting"

_PAGES: dict[str, Callable[[Catalog], object]] = {
    _GREETING: lambda _catalog: {"lmstudio": True},
    "/lms-status": lambda catalog: {"package": catalog.application, "version": catalog.version},
}
"""The responses to plain GET requests (docs/protocol.md#discovery)."""

_DOMAINS_OF_NETWORKS = (".localhost", ".local", ".internal", ".home.arpa", ".lan")
"""The ends of names that nobody can register in the internet."""


class Server:
    """Serves on one port, from `open` to `close`.

    Args:
        state: The state that all connections share.
        authenticator: Checks the credentials of clients.
        host: The address to listen on.
        port: The port; 0 for any free one, of several the first free one.
        origins: Browser origins that may connect; every other one is rejected.
        handle: Makes what serves a connection.
    """

    def __init__(
        self,
        state: ServerState,
        authenticator: Authenticator,
        *,
        host: str = "127.0.0.1",
        port: int | Sequence[int] = 0,
        origins: Collection[str] = (),
        handle: Callable[[Socket, Namespace, ServerState, Authenticator], ConnectionHandler] = ConnectionHandler,
    ) -> None:
        self._handle = handle
        self.host = host
        self.port: int = 0
        self.connections: set[ConnectionHandler] = set()
        self._ports = (port,) if isinstance(port, int) else tuple(port)
        self._state = state
        self.authenticator = authenticator
        self._origins = frozenset(origins)
        self._sockets: WeakSet[Socket] = WeakSet()
        self._listener: WebSocketServer | None = None

    async def open(self) -> None:
        """Open the port and listen.

        Raises:
            LMStudioOSError: If the port is taken, or all of them are.
        """
        *others, last = self._ports
        for port in others:
            with contextlib.suppress(OSError):
                return await self._listen(port)
        try:
            return await self._listen(last)
        except OSError as error:
            reason: object = error
            remedy = "choose another port, or 0 for any free one"
            if error.errno == errno.EADDRINUSE:
                reason = "already in use"
            elif isinstance(error, sockets.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                reason, remedy = "not an address of this machine", "set host to one, such as 127.0.0.1"
            ports = ", ".join(map(str, self._ports))
            raise LMStudioOSError(f"cannot listen on {self.host}, port {ports}: {reason}; {remedy}") from error

    async def close(self) -> None:
        """Close all sockets, and wait until their requests have ended."""
        assert self._listener is not None, "the server listens"
        environment.disallow(self.host, self.port)
        await stop_accepting(self._listener.server)
        for socket in self._sockets:
            # Closing it would wait for its HTTP request, or for a client that does not read or does not hang up.
            if socket.protocol.state is not State.OPEN or socket.is_half_closed or socket.paused:
                socket.transport.abort()
        self._listener.close()
        await self._listener.wait_closed()

    async def _listen(self, port: int) -> None:
        self._listener = await serve(
            self._serve,
            self.host,
            port,
            process_request=self._process_request,
            compression=None,
            open_timeout=None,
            ping_interval=_PING_INTERVAL,
            ping_timeout=_PING_TIMEOUT,
            close_timeout=_CLOSE_TIMEOUT,
            max_size=self._state.limits.message_bytes,
            create_connection=self._create_socket,  # type: ignore[arg-type]  # a callable that returns one is enough
            server_header=None,
            logger=server_logger,
        )
        note_exhaustion_once(self._listener.get_loop())
        self.port = self._listener.sockets[0].getsockname()[1]
        environment.allow(self.host, self.port)

    def _create_socket(self, *arguments: Any, **settings: Any) -> Socket:
        socket = Socket(*arguments, state=self._state, begin_post=self._begin_post, **settings)
        self._sockets.add(socket)
        return socket

    async def _process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        """Return the response to a request that opens no WebSocket, else `None`."""
        path = request.path.partition("?")[0]
        error = self._http_error(request, path)
        if error is not None:
            status, reason = error
            return socket.respond(status, f"{reason}\n")
        if path in _PAGES:
            return _json(socket, _PAGES[path](self._state.registry.catalog))
        if path in _NAMESPACES:
            return None
        return await self._get(socket, path, request.headers.get("Authorization", ""))

    async def _get(self, socket: ServerConnection, path: str, authorization: str) -> Response:
        """Return the response to a request for something that only clients may see."""
        try:
            with door("efforts of reasoning"):
                from lmstudio_integrations.emulator.server.handlers.model_list import GETS  # noqa: PLC0415 - a leaf
        except MissingLeafError:
            handle = None
        else:
            handle = GETS.get(path)
        if handle is None:
            return _json(socket, *unexpected("GET", path))
        if why := self.authenticator.why_token_is_rejected(authorization):
            body = error_body("invalid_request", why, "invalid_api_key")
            return _json(socket, body, http.HTTPStatus.UNAUTHORIZED)
        await self._state.simulate_latency()
        return _json(socket, await handle(self._state))

    def _begin_post(self, socket: Socket) -> RequestWithBody | None:
        """Return what reads and answers a request with a body; `None` if nothing does."""
        try:
            with door("decisions"):
                from lmstudio_integrations.emulator.server.handlers.decisions import POSTS  # noqa: PLC0415 - a leaf
                from lmstudio_integrations.emulator.server.posts import Post  # noqa: PLC0415 - a leaf
        except MissingLeafError:
            return None
        return Post(socket, self, self._state, POSTS)

    def refusal(self, path: str, headers: Headers | HTTPMessage) -> tuple[http.HTTPStatus, str] | None:
        """Return why a request with these headers gets no answer, with the status; `None` if it gets one."""
        for name in ("Host", "Origin", "Authorization"):
            if len(headers.get_all(name) or ()) > 1:
                return http.HTTPStatus.BAD_REQUEST, f"there are several headers {name}"
        origin = headers.get("Origin")
        if origin is not None and origin not in self._origins:
            return http.HTTPStatus.FORBIDDEN, f"the origin {origin} is not allowed"
        # A browser sends the origin of each WebSocket, but none where a page asks what it takes for its own server: its
        # name leads to this machine (DNS rebinding). To a page, which has no token, a server with tokens tells nothing.
        host = headers.get("Host", "")
        if "Upgrade" in headers or path == _GREETING or self.authenticator.requires_token or self._is_own_name(host):
            return None
        remedy = "ask by the address of this machine, or let the server require a token"
        return http.HTTPStatus.FORBIDDEN, f"the host {host} is no known name of this machine; {remedy}"

    def _is_own_name(self, host: str) -> bool:
        """Whether a `Host` is no name that a page of the internet can let lead to this machine."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
        except ValueError:
            return False
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(name)
            return True
        known = {self.host.lower(), sockets.gethostname().lower(), *(urlsplit(each).hostname for each in self._origins)}
        return "." not in name or name in known or name.endswith(_DOMAINS_OF_NETWORKS)

    def _http_error(self, request: Request, path: str) -> tuple[http.HTTPStatus, str] | None:
        if error := self.refusal(path, request.headers):
            return error
        if path in _NAMESPACES and "Upgrade" not in request.headers:
            return http.HTTPStatus.UPGRADE_REQUIRED, "this is a WebSocket endpoint"
        if path not in _NAMESPACES and "Upgrade" in request.headers:
            unknown = http.HTTPStatus.UNAUTHORIZED if self.authenticator.requires_token else http.HTTPStatus.NOT_FOUND
            return unknown, f"there is nothing at {path}"
        return None

    async def _serve(self, socket: ServerConnection) -> None:
        assert isinstance(socket, Socket), "create_connection creates it"
        assert socket.request is not None, "the handshake is done"
        namespace = _NAMESPACES[socket.request.path.partition("?")[0]]
        connection = self._handle(socket, namespace, self._state, self.authenticator)
        self.connections.add(connection)
        self._state.request_log.notify()
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)
            self._state.request_log.notify()


def _json(socket: ServerConnection, value: object, status: http.HTTPStatus = http.HTTPStatus.OK) -> Response:
    made = socket.respond(status, json.dumps(value, separators=(",", ":")))
    del made.headers["Content-Type"]
    made.headers["Content-Type"] = "application/json"
    return made
