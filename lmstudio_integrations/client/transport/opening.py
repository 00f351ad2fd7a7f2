"""Opening a socket to a namespace: where the server is, the WebSocket handshake, and why it failed.

Called by `_socket_session.py`; runs on the I/O thread. The socket library is loaded with the first socket.
"""

import logging
from typing import TYPE_CHECKING

from lmstudio_integrations._redacting_logger import client_logger
from lmstudio_integrations._secrets import holds_secret, redact
from lmstudio_integrations.client.transport.addresses import Address, Target, local_candidates
from lmstudio_integrations.client.transport.greeting import diagnose, first_greeting
from lmstudio_integrations.errors import LMStudioUnreachableError
from lmstudio_integrations.protocol.endpoints import Namespace

if TYPE_CHECKING:
    from lmstudio_integrations.client.transport.websocket import Socket

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 1.0
"""Seconds that the server has to answer the closing handshake."""


async def open_socket(target: Target, namespace: Namespace) -> "Socket":
    """Return a socket that has passed the WebSocket handshake.

    Raises:
        LMStudioUnreachableError: If there is none; says what happened instead.
    """
    address = target.address or await _locate()
    _warn_of_clear_text(address, target)
    return await _handshake(address, namespace, target)


async def _locate() -> Address:
    """Return the LM Studio of this machine."""
    found, tried = await first_greeting(local_candidates())
    if found is None:
        raise LMStudioUnreachableError(
            "no LM Studio found on this machine; start it (or `lms server start`), or pass host=. "
            f"Tried {'; '.join(tried)}",
            tried=tried,
        )
    return found


async def _handshake(address: Address, namespace: Namespace, target: Target) -> "Socket":
    from lmstudio_integrations.client.transport.websocket import Connect, Socket, redirect_of  # noqa: PLC0415 - on first use

    try:
        socket = await Connect(
            address.url(namespace),
            additional_headers=list(target.headers),
            compression=None,
            open_timeout=None,
            ping_interval=None,  # see `Connection`
            close_timeout=CLOSE_TIMEOUT,
            max_size=None,
            max_queue=None,
            create_connection=Socket,
            ssl=(target.ssl_context or True) if address.tls else None,
            proxy=None if address.is_loopback else True,
            logger=client_logger,
        )
    except Exception as error:  # noqa: BLE001 - whatever prevents the handshake is reported with its reason
        problem = error
    else:
        assert isinstance(socket, Socket), "it is made by what was given to connect"
        return socket
    reason = (
        redirect_of(problem, address.url(namespace))
        or await diagnose(address, target.ssl_context)
        or f"LM Studio is there, but rejected the WebSocket /{namespace}: {redact(str(problem))}"
    )
    raise LMStudioUnreachableError(
        f"LM Studio is not reachable at {address}: {reason}. Is it running, and is that its port?",
        tried=(f"{address}: {reason}",),
    ) from (None if holds_secret(problem) else problem)  # such as the URL of a proxy, with its password


def _warn_of_clear_text(address: Address, target: Target) -> None:
    if target.token and not address.tls and not address.is_loopback:
        logger.warning("the API token travels unencrypted to %s; put a TLS proxy in front of it", address.netloc)
