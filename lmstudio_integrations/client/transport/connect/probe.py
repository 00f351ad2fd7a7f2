"""Check whether an LM Studio responds at an address, by its [greeting](docs/protocol.md#discovery), on the I/O thread.

Called by `opening.py`, when a handshake failed, and by `find.py`. No redirect is followed, here or in the
handshake, because only the address that the user gave may get credentials.
"""

import asyncio
import contextlib
import os
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import urljoin

from pydantic_core import from_json

from lmstudio_integrations._support import network_guard
from lmstudio_integrations._support.secrets import redact
from lmstudio_integrations.client.transport.connect.addresses import Address, local_candidates
from lmstudio_integrations.client.transport.connect.suggestions import NO_RESPONSE, WRONG_PORT, no_listener, no_name
from lmstudio_integrations.errors import LMStudioRuntimeError

PROBE_TIMEOUT = 1.0
"""Seconds within which a server must respond."""

_MAX_BODY = 65536
_STATUS = re.compile(rb"HTTP/\S+ (\d{3})")
_LOCATION = re.compile(rb"\r\nlocation:[ \t]*([^\r\n]*)", re.IGNORECASE)

_CERTIFICATE_ERRORS = {
    10: "has expired; renew it, or pass an ssl_context that accepts it",
    62: "is for another host name; set host to a name in it, or pass an ssl_context that accepts it",
    64: "is for another address; set host to a name in it, or pass an ssl_context that accepts it",
}
"""What OpenSSL's codes mean, and what helps. With any other code, no trusted authority has signed the certificate."""


class _Finding(NamedTuple):
    """What happened instead of a greeting.

    Attributes:
        reason: What happened, as a clause; with the remedy, if there is only one.
        remedy: What helps, unless an LM Studio is at another address.
        wrong_scheme: Whether the scheme may be wrong: a TLS server looks like this without TLS, or the reverse.
    """

    reason: str
    remedy: str = ""
    wrong_scheme: bool = False


async def diagnose(address: Address, context: ssl.SSLContext | None = None) -> str | None:
    """Request the greeting; if that fails, check whether the scheme is wrong, with TLS or without.

    For an address that the user gave, because this may open a second connection.

    Args:
        address: The address.
        context: Checks the certificate; `None` uses the system's certificates.

    Returns:
        `None` if an LM Studio responded, else what happened instead, as a clause.

    Raises:
        LMStudioRuntimeError: If tests block the address.
    """
    without_blocked([address])
    finding = await _find(address, context)
    if finding is None:
        return None
    if finding.wrong_scheme and await _speaks_http(replace(address, tls=not address.tls)):
        if address.tls:
            return "TLS failed: the server speaks plain http; use ws:// in place of wss://, or http:// in place of https://"
        return "the server speaks TLS; use wss:// in place of ws://, or https:// in place of http://"
    if not finding.remedy:
        return finding.reason
    return f"{finding.reason}; {await _other_address(address, context) or finding.remedy}"


async def _other_address(address: Address, context: ssl.SSLContext | None) -> str | None:
    """Return which address to use instead: the same without a path, or the one of an LM Studio on this machine."""
    root = replace(address, prefix="")
    if address.prefix and await _find(root, context) is None:
        return f"LM Studio is at {root}, without {address.prefix!r}: set host to that"
    if address.is_loopback:
        with contextlib.suppress(LMStudioRuntimeError):  # tests block the others
            other, _ = await first_greeting(local_candidates())
            return (
                None
                if other is None
                else f"an LM Studio listens at {other.netloc}: set host to that, or leave it unset"
            )
    return None


def without_blocked(addresses: Sequence[Address]) -> list[Address]:
    """Return the addresses that tests do not block (`pytest --lmstudio-block`). Called before each connection.

    Raises:
        LMStudioRuntimeError: If they block all.
    """
    permitted = [
        each for each in addresses if not network_guard.is_blocked(each.host, each.port, is_loopback=each.is_loopback)
    ]
    if addresses and not permitted:
        raise LMStudioRuntimeError(
            f"--lmstudio-block rejects the connection to {', '.join(each.netloc for each in addresses)}: no emulator "
            "of this test run listens there; use the address of a fixture, such as lmstudio_host, or run pytest "
            "without --lmstudio-block"
        )
    return permitted


async def first_greeting(addresses: Sequence[Address]) -> tuple[Address | None, tuple[str, ...]]:
    """Request all greetings at once; return the first address of an LM Studio, and what happened at the others.

    Raises:
        LMStudioRuntimeError: If tests block all addresses.
    """
    addresses = without_blocked(addresses)
    results = list(zip(addresses, await asyncio.gather(*map(_find, addresses)), strict=True))
    first = next((address for address, finding in results if finding is None), None)
    return first, tuple(f"{address}: {finding.reason}" for address, finding in results if finding)


def redirected(url: str, location: str) -> str:
    """Return the clause that says where a server redirects to."""
    with contextlib.suppress(ValueError):  # an invalid URL is shown as it is
        location = urljoin(url, location)
    return f"it redirects to {redact(location)}; set host to that address if LM Studio is there"


async def _find(address: Address, context: ssl.SSLContext | None = None) -> _Finding | None:
    """Return what happened instead of a greeting; `None` if an LM Studio greeted."""
    tls = (context or ssl.create_default_context()) if address.tls else None
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            return _check(address, *await _get(address, tls))
    except TimeoutError:
        return _Finding(f"no response within {PROBE_TIMEOUT:g} s", NO_RESPONSE)
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError) as error:
        return _failed_connection(address, error)
    except (socket.gaierror, UnicodeError) as error:
        return _Finding(f"the name {address.host!r} cannot be resolved ({error})", no_name(address.host))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        return _Finding(f"nothing listens there ({reason})", no_listener(address))
    except (ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return _Finding("something listens there that does not speak HTTP", WRONG_PORT, wrong_scheme=not address.tls)


def _failed_connection(address: Address, error: Exception) -> _Finding:
    """Return why the connection was not made, or did not last until the response."""
    if isinstance(error, ssl.SSLCertVerificationError):
        what = _CERTIFICATE_ERRORS.get(
            error.verify_code, "is not trusted; pass an ssl_context that trusts it (ca_file in the adapters)"
        )
        return _Finding(f"TLS failed: the server's certificate {what} ({error.verify_message})")
    if address.tls:
        return _Finding(f"TLS failed ({str(error) or type(error).__name__})", WRONG_PORT, wrong_scheme=True)
    return _Finding("the connection was cut", WRONG_PORT, wrong_scheme=True)


def _check(address: Address, head: bytes, body: bytes) -> _Finding | None:
    """Return what is wrong with the response; `None` if it is LM Studio's greeting.

    Raises:
        ValueError: If it is not HTTP.
    """
    status, location = _STATUS.match(head), _LOCATION.search(head)
    if status is None:
        raise ValueError("not HTTP")
    if status[1].startswith(b"3") and location:
        url = f"{'https' if address.tls else 'http'}://{address.netloc}"
        return _Finding(redirected(url, location[1].decode("latin-1")))
    if status[1] == b"200" and _is_greeting(body):
        return None
    # A TLS server may answer in plain HTTP that TLS is required.
    return _Finding("something else listens there, not LM Studio", WRONG_PORT, wrong_scheme=not address.tls)


async def _speaks_http(address: Address) -> bool:
    """Return whether a server answers in HTTP; under TLS, with any certificate."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if address.tls else None
    if tls is not None:
        # Nothing secret is sent, and the response is not trusted.
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(PROBE_TIMEOUT):
            head, _ = await _get(address, tls)
        return _STATUS.match(head) is not None
    return False


async def _get(address: Address, tls: ssl.SSLContext | None) -> tuple[bytes, bytes]:
    """Return head and body of the response to a request for the greeting; other servers may send anything."""
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=tls)
    try:
        request = (
            f"GET {address.prefix}/lmstudio-greeting HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n\r\n"
        )
        writer.write(request.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.read(_MAX_BODY)
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await writer.wait_closed()
    return head, body


def _is_greeting(body: bytes) -> bool:
    with contextlib.suppress(ValueError, LookupError, TypeError):  # it is not JSON, or another object
        return from_json(body)["lmstudio"] is True
    return False
