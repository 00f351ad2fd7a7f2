"""Open a socket to a namespace: find the server, make the WebSocket handshake, explain a failure.

Called by `socket_session.py` on the I/O thread.
"""

import asyncio
import logging
from dataclasses import replace

from lmstudio_integrations._support.secrets import client_logger, redact_address
from lmstudio_integrations.client.transport.connect.addresses import Address, Target
from lmstudio_integrations.client.transport.connect.discovery import discover, may_get_secrets, not_found
from lmstudio_integrations.client.transport.connect.find import diagnose
from lmstudio_integrations.client.transport.connect.probe import without_blocked
from lmstudio_integrations.client.transport.connect.suggestions import source_of, unencrypted
from lmstudio_integrations.client.transport.connect.websocket import Connect, Socket, redirect_of
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.errors import LMStudioUnreachableError
from lmstudio_integrations.protocol.endpoints import Namespace

logger: logging.Logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 1.0
"""Seconds within which the server must answer the closing handshake."""


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
        LMStudioRuntimeError: If tests block it.
    """
    address = target.address
    assert address is not None, "it was found before"
    warning = unencrypted(target)
    if warning:
        logger.warning("%s", warning)
    without_blocked([address])
    try:
        socket = await Connect(
            address.url(namespace),
            additional_headers=list(target.headers),
            compression=None,
            open_timeout=None,
            ping_interval=None,  # `Connection` pings
            close_timeout=CLOSE_TIMEOUT,
            max_size=target.max_message_bytes,
            max_queue=None,
            create_connection=Socket,
            ssl=(target.ssl_context or True) if address.tls else None,
            proxy=None if address.is_loopback else True,
            logger=client_logger,
        )
    except Exception as error:  # noqa: BLE001 - any failure of the handshake is reported with its reason
        problem = error
    else:
        assert isinstance(socket, Socket), "it is made by create_connection"
        return socket
    text, shown = str(problem), redact_address(str(problem))
    reason = (
        redirect_of(problem, address.url(namespace))
        or await diagnose(address, target.ssl_context)
        or f"LM Studio is there, but rejected the WebSocket /{namespace}: {shown}; update LM Studio, or "
        "let the proxy in front of it pass WebSockets"
    )
    raise LMStudioUnreachableError(
        f"LM Studio is not reachable at {address}{source_of(address)}: {reason}",
        tried=(f"{address}: {reason}",),
    ) from (None if shown != text else problem)  # for example a proxy URL with a password
