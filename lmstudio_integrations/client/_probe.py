"""Whether an LM Studio answers at an address: `GET /lmstudio-greeting` (protocol §1.3). Runs on the I/O thread."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Iterable

from pydantic_core import from_json

from lmstudio_integrations._narrow import is_object
from lmstudio_integrations.client._address import Address

PROBE_TIMEOUT = 1.0
"""Seconds that a server has to greet."""

_MAX_ANSWER = 65536


async def greet(address: Address, context: ssl.SSLContext | None = None) -> str | None:
    """Ask for the greeting.

    Args:
        address: Where.
        context: How to check a certificate, if not in the system's way.

    Returns:
        `None` if an LM Studio answered, else what happened instead, as a clause.
    """
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            answer = await _get(address, "/lmstudio-greeting", context)
    except TimeoutError:
        return f"no answer within {PROBE_TIMEOUT:g} s"
    except (ssl.SSLError, ConnectionResetError) as error:
        return f"TLS failed ({error}); use ws:// if the server has none" if address.tls else "the connection was cut"
    except (socket.gaierror, UnicodeError) as error:
        return f"the name {address.host!r} cannot be resolved ({error})"
    except OSError as error:
        return f"nothing listens there ({os.strerror(error.errno) if error.errno else error})"
    except (ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return "something listens there that does not speak HTTP"
    return None if answer else "something else listens there, not LM Studio"


async def first_greeting(addresses: Iterable[Address]) -> tuple[Address | None, tuple[str, ...]]:
    """Ask all at once; return the first, in the given order, where an LM Studio is, and what all others said."""
    candidates = tuple(addresses)
    answers = await asyncio.gather(*(greet(address) for address in candidates))
    found = next((address for address, answer in zip(candidates, answers, strict=True) if answer is None), None)
    return found, tuple(f"{address}: {answer}" for address, answer in zip(candidates, answers, strict=True) if answer)


async def _get(address: Address, path: str, context: ssl.SSLContext | None) -> bool:
    """Return whether the answer is LM Studio's greeting; a server of another kind may answer anything."""
    tls = (context or ssl.create_default_context()) if address.tls else None
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=tls)
    try:
        request = f"GET {address.prefix}{path} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/"):
            raise ValueError("not HTTP")
        body = await reader.read(_MAX_ANSWER)
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await writer.wait_closed()
    return b" 200 " in head.split(b"\r\n", 1)[0] and _is_greeting(body)


def _is_greeting(body: bytes) -> bool:
    try:
        value = from_json(body)
    except ValueError:
        return False
    return is_object(value) and value.get("lmstudio") is True
