"""Ask a decision model over HTTP (docs/protocol.md#decisions). Runs on the I/O thread; needs httpx.

The native API loads and lists these models, but does not ask them. Each request has a connection of its own.
"""

import asyncio
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import httpx

from lmstudio_integrations._support.secrets import redact_address
from lmstudio_integrations._support.suggestions import UPDATE_FOR_DECISIONS
from lmstudio_integrations._support.text import beginning, dumps
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.transport.connect.addresses import Address, Target, source_of
from lmstudio_integrations.client.transport.connect.discovery import diagnose
from lmstudio_integrations.client.transport.connect.opening import find_server
from lmstudio_integrations.client.transport.connect.probe import failed_proxy, proxy_of, without_blocked
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioModelNotFoundError,
    LMStudioServerError,
    LMStudioTimeoutError,
    LMStudioUnreachableError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.types.timeouts import EXPIRIES

PATH = "/v1/systemone"

UPDATE = f"{UPDATE_FOR_DECISIONS}, or let the proxy in front of it pass HTTP requests"


async def post(target: Target, timeouts: Timeouts, remaining: float | None, body: Mapping[str, Any]) -> Any:
    """Return the response to a request, as JSON.

    Args:
        target: The server, and the credentials.
        timeouts: `connect_timeout` limits the connection. The server sends nothing while the request waits in the
            queue of the model and is processed, so `queue_timeout` limits both.
        remaining: What is left of `total_timeout`, in seconds; `None` without one.
        body: The request.

    Raises:
        LMStudioError: If the server cannot be reached, or responds with an error.
    """
    used = await find_server(target)
    address = used.address
    assert address is not None, "it is found"
    without_blocked([address])
    headers = httpx.Headers(used.http_headers)
    headers["Content-Type"] = "application/json"
    # httpx has certificates of its own, unlike the WebSockets. Reading the system's would block the I/O thread.
    tls = used.ssl_context
    if tls is None and address.tls:
        tls = await asyncio.to_thread(ssl.create_default_context)
    limits = httpx.Timeout(timeouts.get("queue_timeout"), connect=timeouts.get("connect_timeout"))
    url = f"{'https' if address.tls else 'http'}://{address.netloc}{address.prefix}{PATH}"
    proxy = proxy_of(address)  # the one of the WebSockets; httpx reads other variables, and decides otherwise
    try:
        async with (
            asyncio.timeout(None if remaining is None else max(0.0, remaining)),
            httpx.AsyncClient(verify=tls or False, timeout=limits, trust_env=False, proxy=proxy) as client,
        ):
            response = await client.post(url, content=dumps(body), headers=headers)
    except TimeoutError:
        raise _expired("total_timeout", timeouts, address) from None
    except httpx.TimeoutException as error:
        is_connecting = isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout)
        raise _expired("connect_timeout" if is_connecting else "queue_timeout", timeouts, address) from None
    except (httpx.ConnectError, httpx.ProxyError, httpx.UnsupportedProtocol, ValueError, ImportError) as error:
        # The last two are of a proxy that httpx cannot use.
        reason = redact_address(str(error)) or type(error).__name__
        if proxy is not None:
            reason = failed_proxy(address, proxy, reason, await diagnose(address, used.ssl_context))
        raise LMStudioUnreachableError(
            f"LM Studio is not reachable at {address}{source_of(address)}: {reason}", tried=(f"{address}: {reason}",)
        ) from None  # it may contain the password of a proxy
    except httpx.TransportError as error:
        reason = redact_address(str(error)) or type(error).__name__
        raise LMStudioConnectionLostError(
            f"Decision: the connection to {address.netloc} was lost: {reason}"
        ) from None  # as above
    found = _json(response)
    if response.is_success and is_object(found) and found.get("error") is None:
        return found
    raise _error(response, found, target, used)


def _expired(name: str, timeouts: Timeouts, address: Address) -> LMStudioTimeoutError:
    limit = dict(timeouts)[name]
    assert isinstance(limit, float | int), "it has expired"
    return LMStudioTimeoutError(
        f"Decision: no response from {address.netloc}: {name} expired after {limit:.12g} s; {EXPIRIES[name].remedy}",
        timeout_name=name,
        elapsed=limit,
    )


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _error(response: httpx.Response, found: Any, target: Target, used: Target) -> LMStudioError:
    """Return the error of a response. Its text is the server's, if it has one."""
    status = response.status_code
    problem = found.get("error") if is_object(found) else None
    text = problem.get("message") if is_object(problem) else problem
    shown = text if isinstance(text, str) and text else f"status {status}, {beginning(response.text)}"
    details: dict[str, Any] = {"title": shown, "error_data": problem if is_object(problem) else None}
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return LMStudioAuthenticationError(
            f"LM Studio rejected this client: {shown}; {target.advice_after_rejection(used)}", **details
        )
    if status == HTTPStatus.NOT_FOUND and isinstance(text, str):
        return LMStudioModelNotFoundError(f"Decision: {shown}", **details)
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED} or response.is_success:
        return LMStudioUnsupportedError(f"Decision: the server at {used} has no {PATH} ({shown}); {UPDATE}", **details)
    if status == HTTPStatus.NOT_IMPLEMENTED:
        return LMStudioUnsupportedError(f"Decision: {shown}", **details)
    return LMStudioServerError(f"Decision: {shown}", **details)
