"""Open a socket to a namespace: find the server, make the WebSocket handshake, explain a failure.

Called by `socket_session.py` on the I/O thread, with the first connection. The socket is that of `websockets`, which
also knows when anything was received.
"""

import asyncio
import logging
from dataclasses import replace
from http import HTTPStatus

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from lmstudio_integrations._support.environment import USER_AGENT
from lmstudio_integrations._support.secrets import client_logger, redact_address
from lmstudio_integrations._support.suggestions import UPDATE_FOR_DECISIONS
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.transport.connect.addresses import Address, Target, source_of, unencrypted
from lmstudio_integrations.client.transport.connect.discovery import diagnose, discover, may_get_secrets, not_found
from lmstudio_integrations.client.transport.connect.probe import (
    NEXT_ADDRESS_DELAY,
    failed_proxy,
    no_descriptors,
    proxy_of,
    redirected,
    without_blocked,
)
from lmstudio_integrations.client.transport.connect.sockets import Socket
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioServerError,
    LMStudioUnreachableError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol.endpoints import Namespace


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


logger: logging.Logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 1.0
"""Seconds within which the server must answer the closing handshake."""

_ALWAYS_THERE: Namespace = "llm"
"""A namespace that every server has."""


async def find_server(target: Target) -> Target:
    """Return a target with an address: if it has none, that of this machine's server.

    It has no token and no headers if that server may be another user's: anyone may listen on a port.

    Raises:
        LMStudioUnreachableError: If there is none.
        LMStudioRuntimeError: If tests block it.
    """
    if target.address is not None:
        return target
    address, attempts = await discover()
    if address is None:
        raise LMStudioUnreachableError(not_found(attempts), tried=tuple(map(str, attempts)))
    IOThread.current().shared[None, Address] = address  # what was seen there is the same under its own name
    has_secrets = target.token is not None or bool(target.headers)
    if has_secrets and not await asyncio.to_thread(may_get_secrets, address):
        return replace(target, address=address, token=None, headers=())
    return replace(target, address=address)


async def open_socket(target: Target, namespace: Namespace) -> Socket:
    """Return a socket that has passed the WebSocket handshake.

    Raises:
        LMStudioUnreachableError: If that fails; the message says why.
        LMStudioAuthenticationError: If the server rejects this client in the handshake.
        LMStudioUnsupportedError: If it rejects this namespace only.
        LMStudioRuntimeError: If tests block it.
    """
    address = target.address
    assert address is not None, "it was found before"
    warning = unencrypted(target)
    if warning:
        logger.warning("%s", warning)
    without_blocked([address])
    try:
        return await _handshake(target, address, namespace)
    except Exception as error:  # noqa: BLE001 - any failure of the handshake is reported with its reason
        problem = error
    text, shown = str(problem), redact_address(str(problem))
    cause = None if shown != text else problem  # for example a proxy URL with a password
    reason = redirect_of(problem, address.url(namespace)) or no_descriptors(problem)
    if reason is None:
        proxy, reason = proxy_of(address), await diagnose(address, target.ssl_context)
        # What has a status was sent by a server, which perhaps only the proxy reaches.
        is_there = reason is None or proxy is not None
        if is_there and (rejection := await _rejection_of(problem, target, address, namespace)):
            raise rejection from cause
        if proxy is not None:
            reason = failed_proxy(address, proxy, shown, reason)
    reason = reason or (
        f"LM Studio is there, but rejected the WebSocket /{namespace}: {shown}; update LM Studio, or "
        "let the proxy in front of it pass WebSockets"
    )
    raise LMStudioUnreachableError(
        f"LM Studio is not reachable at {address}{source_of(address)}: {reason}",
        tried=(f"{address}: {reason}",),
    ) from cause


async def _handshake(target: Target, address: Address, namespace: Namespace) -> Socket:
    socket = await Connect(
        address.url(namespace),
        additional_headers=list(target.headers),
        user_agent_header=USER_AGENT,
        compression=None,
        open_timeout=None,
        ping_interval=None,  # `Connection` pings
        close_timeout=CLOSE_TIMEOUT,
        max_size=target.max_message_bytes,
        max_queue=None,
        create_connection=Socket,
        ssl=(target.ssl_context or True) if address.tls else None,
        happy_eyeballs_delay=NEXT_ADDRESS_DELAY,
        proxy=proxy_of(address),
        logger=client_logger,
    )
    assert isinstance(socket, Socket), "it is made by create_connection"
    socket.read_small(target.max_message_bytes)
    return socket


async def _rejection_of(
    problem: Exception, target: Target, address: Address, namespace: Namespace
) -> LMStudioServerError | None:
    """Return the error for a status that an LM Studio sent instead of opening a namespace, if its meaning is known.

    Where a server requires tokens, a path that it does not have is 401 as well (docs/protocol.md#rejected-handshakes).
    So what another namespace comes to decides.
    """
    status = problem.response.status_code if isinstance(problem, InvalidStatus) else None
    if status not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND}:
        return None
    if namespace != _ALWAYS_THERE and await _opens(target, address, _ALWAYS_THERE):
        update = UPDATE_FOR_DECISIONS if namespace == "decision" else "update LM Studio"
        return LMStudioUnsupportedError(
            f"LM Studio at {address} does not have the WebSocket /{namespace} (status {status:d}); {update}"
        )
    if status == HTTPStatus.NOT_FOUND:
        return None
    return LMStudioAuthenticationError(
        f"LM Studio at {address}, or a proxy in front of it, rejected this client with status {status:d}, before it "
        f"opened the WebSocket /{namespace}",
        title="Authentication failed",
    )


async def _opens(target: Target, address: Address, namespace: Namespace) -> bool:
    """Return whether a server opens a namespace."""
    try:
        socket = await _handshake(target, address, namespace)
    except (OSError, WebSocketException):
        return False
    socket.transport.abort()
    return True
