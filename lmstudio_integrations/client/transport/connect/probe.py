"""Check whether an LM Studio responds at an address, by its [greeting](docs/protocol.md#discovery), on the I/O thread.

Called by `discovery.py`; `get` requests another page, with credentials. No redirect is followed, here or in the
handshake, because only the address that the user gave may get credentials.
"""

import asyncio
import contextlib
import errno
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import urljoin

from pydantic_core import from_json
from websockets.asyncio.client import (  # type: ignore[attr-defined]
    get_proxy,  # pyright: ignore[reportPrivateImportUsage] - its module depends on the version
)
from websockets.uri import parse_uri

from lmstudio_integrations._support import environment
from lmstudio_integrations._support.secrets import redact, redact_address
from lmstudio_integrations._support.suggestions import no_listener, no_name
from lmstudio_integrations.client.transport.connect.addresses import BIONIC_PORT, DEFAULT_PORT, Address, Target
from lmstudio_integrations.errors import LMStudioRuntimeError

T = TypeVar("T")

PROBE_TIMEOUT = 1.0
"""Seconds within which a server must greet."""
STATUS_TIMEOUT = 3.0
"""Seconds within which a server must tell its status; LM Studio's command line waits as long."""

NEXT_ADDRESS_DELAY = 0.25
"""Seconds after which the next address of a name is tried beside one that has not answered, as RFC 8305 recommends."""

WRONG_PORT = f"set host to LM Studio's own port, by default {DEFAULT_PORT} (Bionic: {DEFAULT_PORT} or {BIONIC_PORT})"
NO_RESPONSE = "check the address, and whether a firewall blocks it"

_PROXY_VARIABLES = ("ws_proxy", "wss_proxy", "socks_proxy", "https_proxy", "http_proxy")
"""The variables that name a proxy for a WebSocket, in any case, preferred first. `all_proxy` is none of them."""

_MAX_BODY = 1024 * 1024
_OWN_HEADERS: Mapping[str, str] = {"User-Agent": environment.USER_AGENT}
_STATUS = rb"HTTP/\S+ (\d{3})"
_LOCATION = rb"(?i)\r\nlocation:[ \t]*([^\r\n]*)"
_LENGTH = rb"(?i)\r\ncontent-length:[ \t]*(\d{1,9})"
_CHUNKED = rb"(?i)\r\ntransfer-encoding:[ \t]*chunked"
_LAST_CHUNK = b"0\r\n\r\n"

_CERTIFICATE_ERRORS = {
    10: "has expired; renew it, or pass an ssl_context that accepts it",
    62: "is for another host name; set host to a name in it, or pass an ssl_context that accepts it",
    64: "is for another address; set host to a name in it, or pass an ssl_context that accepts it",
}
"""What OpenSSL's codes mean, and what helps. With any other code, no trusted authority has signed the certificate."""


class Finding(NamedTuple):
    """What happened instead of a greeting.

    Attributes:
        reason: What happened, as a clause; with the remedy, if there is only one.
        remedy: What helps, unless an LM Studio is at another address.
        wrong_scheme: Whether the scheme may be wrong: a TLS server looks like this without TLS, or the reverse.
        answers: Whether an HTTP server answered.
    """

    reason: str
    remedy: str = ""
    wrong_scheme: bool = False
    answers: bool = False


class ServerStatus(NamedTuple):
    """Which application a server is.

    Attributes:
        package: What it calls itself: `lmstudio`, `daemon` for llmster, `bionic`, or something newer.
        version: Its version.
    """

    package: str
    version: str

    @property
    def application(self) -> str:
        """Its name for people."""
        return _APPLICATIONS.get(self.package, self.package)


_APPLICATIONS = {"lmstudio": "LM Studio", "daemon": "llmster", "bionic": "Bionic"}


def without_blocked(addresses: Sequence[Address]) -> list[Address]:
    """Return the addresses that tests do not block (`pytest --lmstudio-block`). Called before each connection.

    Raises:
        LMStudioRuntimeError: If they block all.
    """
    permitted = [
        each for each in addresses if not environment.is_blocked(each.host, each.port, is_loopback=each.is_loopback)
    ]
    if addresses and not permitted:
        raise LMStudioRuntimeError(
            f"--lmstudio-block rejects the connection to {', '.join(each.netloc for each in addresses)}: no emulator "
            "of this test run listens there; use the address of a fixture, such as lmstudio_host, or run pytest "
            "without --lmstudio-block"
        )
    return permitted


def proxy_of(address: Address) -> str | None:
    """Return the URL of the proxy through which a server is reached: that of the environment, or of the system."""
    if address.is_loopback:
        return None
    proxy: str | None = get_proxy(parse_uri(str(address)))
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"  # as curl and httpx read it


def name_proxy(proxy: str) -> str:
    """Return a proxy with the variable that names it, without user and password."""
    place = proxy.partition("://")[2]
    names = [
        name
        for name in sorted(os.environ, key=str.isupper)  # of two spellings, the one in lower case counts
        if name.lower() in _PROXY_VARIABLES and os.environ[name].rpartition("://")[2] == place
    ]
    if not names:
        return f"the system's proxy {redact_address(proxy)}"
    name = min(names, key=lambda each: _PROXY_VARIABLES.index(each.lower()))
    return f"the proxy {name}={redact_address(os.environ[name])}"


def failed_proxy(address: Address, proxy: str, problem: str, without: str | None) -> str:
    """Return the clause that says that a server cannot be reached through a proxy.

    Args:
        address: The server.
        proxy: The URL of the proxy.
        problem: What happened.
        without: What happens without the proxy; `None` if the server responds.
    """
    name = next((each for each in ("no_proxy", "NO_PROXY") if os.environ.get(each)), "NO_PROXY")
    exempted = ",".join(filter(None, (os.environ.get(name), address.host)))
    failed = f"{name_proxy(proxy)} does not lead to it: {problem}"
    if without is None:
        return f"{failed}; it responds without the proxy: set {name}={exempted}"
    return f"{failed}; correct the proxy, or set {name}={exempted} if none is needed; without it, {without}"


def redirected(url: str, location: str) -> str:
    """Return the clause that says where a server redirects to."""
    with contextlib.suppress(ValueError):  # an invalid URL is shown as it is
        location = urljoin(url, location)
    return f"it redirects to {redact(location)}; set host to that address if LM Studio is there"


async def probe(address: Address, context: ssl.SSLContext | None = None) -> Finding | None:
    """Return what happened instead of a greeting; `None` if an LM Studio greeted.

    Args:
        address: The address.
        context: Checks the certificate; `None` uses the system's certificates.
    """
    found = await _request(address, "lmstudio-greeting", _read_greeting, PROBE_TIMEOUT, context)
    return found if isinstance(found, Finding) else None


async def probe_status(address: Address) -> ServerStatus | Finding:
    """Return the status of a server, or what happened instead."""
    return await _request(address, "lms-status", _read_status, STATUS_TIMEOUT)


async def get(target: Target, path: str, read: Callable[[bytes], T | None]) -> T | Finding:
    """Return what a page of a server says, as `read` returns it once it is complete; or what happened instead.

    Raises:
        LMStudioRuntimeError: If tests block the address.
    """
    address = target.address
    assert address is not None, "it was found before"
    without_blocked([address])
    return await _request(address, path, read, STATUS_TIMEOUT, target.ssl_context, headers=target.http_headers)


async def speaks_http(address: Address) -> bool:
    """Return whether a server answers in HTTP; under TLS, with any certificate."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if address.tls else None
    if tls is not None:
        # Nothing secret is sent, and the response is not trusted.
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(PROBE_TIMEOUT):
            head, _ = await _get(address, "lmstudio-greeting", tls, lambda _body: True)
        return re.match(_STATUS, head) is not None
    return False


async def _request(
    address: Address,
    path: str,
    read: Callable[[bytes], T | None],
    seconds: float,
    context: ssl.SSLContext | None = None,
    *,
    headers: Mapping[str, str] = _OWN_HEADERS,
) -> T | Finding:
    """Return what a response says, as `read` returns it; a finding if that is `None`, or there is no response."""
    tls = (context or ssl.create_default_context()) if address.tls else None
    try:
        async with asyncio.timeout(seconds):
            head, body = await _get(address, path, tls, lambda body: read(body) is not None, headers)
            return _check(address, head) or read(body) or _another_server(address)
    except TimeoutError:
        return Finding(f"no response within {seconds:g} s", NO_RESPONSE)
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError) as error:
        return _failed_connection(address, error)
    except (socket.gaierror, UnicodeError) as error:
        return Finding(f"the name {address.host!r} cannot be resolved ({error})", no_name(address.host))
    except OSError as error:
        if exhausted := no_descriptors(error):
            finding = Finding(exhausted)
        else:
            reason = os.strerror(error.errno) if error.errno else error
            finding = Finding(
                f"nothing listens there ({reason})", no_listener(address.port, is_local=address.is_loopback)
            )
        return finding
    except (ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return Finding("something listens there that does not speak HTTP", WRONG_PORT, wrong_scheme=not address.tls)


def no_descriptors(error: Exception) -> str | None:
    """Return the clause for an error that means that no file descriptor is left; `None` for any other."""
    if not isinstance(error, OSError) or error.errno not in {errno.EMFILE, errno.ENFILE}:
        return None
    whose = "this process" if error.errno == errno.EMFILE else "this machine"
    return (
        f"{whose} has no file descriptor left for a connection ({os.strerror(error.errno)}); close files and clients "
        "that are not used, or raise the limit (ulimit -n)"
    )


def _failed_connection(address: Address, error: Exception) -> Finding:
    """Return why the connection was not made, or did not last until the response."""
    if isinstance(error, ssl.SSLCertVerificationError):
        what = _CERTIFICATE_ERRORS.get(
            error.verify_code, "is not trusted; pass an ssl_context that trusts it (ca_file in the adapters)"
        )
        return Finding(f"TLS failed: the server's certificate {what} ({error.verify_message})")
    if address.tls:
        return Finding(f"TLS failed ({str(error) or type(error).__name__})", WRONG_PORT, wrong_scheme=True)
    return Finding("the connection was cut", WRONG_PORT, wrong_scheme=True)


def _check(address: Address, head: bytes) -> Finding | None:
    """Return what is wrong with the head of a response; `None` if it may be one of LM Studio.

    Raises:
        ValueError: If it is not HTTP.
    """
    status, location = re.match(_STATUS, head), re.search(_LOCATION, head)
    if status is None:
        raise ValueError("not HTTP")
    if status[1].startswith(b"3") and location:
        url = f"{'https' if address.tls else 'http'}://{address.netloc}"
        return Finding(redirected(url, location[1].decode("latin-1")))
    return None if status[1] == b"200" else _another_server(address)


def _another_server(address: Address) -> Finding:
    # A TLS server may answer in plain HTTP that TLS is required.
    reason = "something else listens there, not LM Studio"
    return Finding(reason, WRONG_PORT, wrong_scheme=not address.tls, answers=True)


async def _get(
    address: Address,
    path: str,
    tls: ssl.SSLContext | None,
    is_expected: Callable[[bytes], bool],
    headers: Mapping[str, str] = _OWN_HEADERS,
) -> tuple[bytes, bytes]:
    """Return head and body of a response, the body until it is what is expected; other servers may send anything."""
    reader, writer = await asyncio.open_connection(
        address.host, address.port, ssl=tls, happy_eyeballs_delay=NEXT_ADDRESS_DELAY
    )
    try:
        fields = {"Host": address.netloc, "Connection": "close", **headers}
        lines = [f"GET {address.prefix}/{path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        writer.write("\r\n".join([*lines, "\r\n"]).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        body = await _read_body(reader, head, is_expected)
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await writer.wait_closed()
    return head, body


async def _read_body(reader: asyncio.StreamReader, head: bytes, is_expected: Callable[[bytes], bool]) -> bytes:
    """Return a body, which may come in several segments; a server may keep the connection open after it."""
    length, is_chunked = re.search(_LENGTH, head), re.search(_CHUNKED, head)
    limit = min(int(length[1]), _MAX_BODY) if length else _MAX_BODY
    received = b""
    while True:
        body = _without_sizes(received) if is_chunked else received
        is_complete = len(received) >= limit or (is_chunked and received.endswith(_LAST_CHUNK))
        if is_complete or is_expected(body) or not (segment := await reader.read(limit - len(received))):
            return body
        received += segment


def _without_sizes(chunks: bytes) -> bytes:
    """Return the content of chunks, the last of which may be incomplete.

    Raises:
        ValueError: If they are none.
    """
    content, at = bytearray(), 0
    while at < len(chunks) and (end_of_size := chunks.find(b"\r\n", at)) >= 0:
        size = int(chunks[at:end_of_size].partition(b";")[0] or b"0", 16)
        if size < 0:
            raise ValueError("the size of a chunk is negative")
        content += chunks[end_of_size + 2 : end_of_size + 2 + size]
        at = end_of_size + 2 + size + 2
    return bytes(content)


def _read_greeting(body: bytes) -> bool | None:
    with contextlib.suppress(ValueError, LookupError, TypeError):  # it is not JSON, or another object
        return from_json(body)["lmstudio"] is True or None
    return None


def _read_status(body: bytes) -> ServerStatus | None:
    with contextlib.suppress(ValueError, LookupError, TypeError):
        match from_json(body):
            case {"package": str(package), "version": str(version)}:
                return ServerStatus(package, version)
            case _:
                return None
    return None
