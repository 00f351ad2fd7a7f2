"""Download an image from an untrusted URL. Runs on the I/O thread, called by `uploads.py`; needs httpx.

Without a guard, such a URL could make this process read what only this process can reach: a service on this machine, a
router, the metadata of a cloud. So each hop resolves its host once, checks all addresses, and connects to a checked
address, not to the name, which could resolve differently the next time. Proxies of the environment are ignored, because
a proxy resolves names itself. No cookies and no credentials are sent, and nothing is decompressed.
"""

import asyncio
import socket
import ssl
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import httpx

from lmstudio_integrations._support.environment import USER_AGENT
from lmstudio_integrations._support.secrets import redacted_url
from lmstudio_integrations.errors import LMStudioImageDownloadError
from lmstudio_integrations.types.files import IMAGE_FORMATS, image_format

MAX_BYTES = 20 * 2**20
MAX_REDIRECTS = 5

_SIGNATURE_SIZE = max(each.position + len(each.signature) for each in IMAGE_FORMATS)
"""The number of bytes that decide whether a file is an image."""

_HEADERS = {
    "User-Agent": USER_AGENT,
    "Accept": ", ".join(each.media_type for each in IMAGE_FORMATS),
    "Accept-Encoding": "identity",
    "Connection": "close",
}

_GLOBAL_UNICAST = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")
_NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # protocol assignments, a cloud's metadata among them; global to older Pythons
            "192.88.99.0/24",  # relays of 6to4
            "168.63.129.16/32",  # Azure's own services, as seen from each of its machines
            "2001::/23",  # protocol assignments, Teredo among them
            "2002::/16",  # 6to4, which has an IPv4 address inside
            "3fff::/20",  # documentation; global to older Pythons
        ),
    )
)


def is_public_address(text: str) -> bool:
    """Whether an IP address is on the public internet.

    If an IPv6 address stands for an IPv4 address (mapped, NAT64), the IPv4 address decides.
    """
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        inner = IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address.ipv4_mapped
        if inner is None and address not in _GLOBAL_UNICAST:
            return False
        address = inner or address
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOT_PUBLIC)


async def resolve(host: str, port: int) -> list[str]:
    """Resolve a host with the system's resolver, which also reads numeric forms such as `0x7f.1`."""
    entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


class _HopError(Exception):
    """Why an image cannot be downloaded from a URL, and what helps, as a clause."""


async def fetch(url: str, *, allow_private: bool, limit: float, connect_limit: float | None) -> bytes:
    """Download an image.

    Args:
        url: The URL.
        allow_private: Whether the host may have an address that is not public.
        limit: Seconds for everything, including redirects.
        connect_limit: Seconds for a connection to one address.

    Raises:
        LMStudioImageDownloadError: If it cannot or must not be downloaded.
        TimeoutError: If the limit expires.
    """
    current = url
    async with asyncio.timeout(limit):
        for _ in range(MAX_REDIRECTS + 1):
            try:
                response = await _get(_check(current), allow_private=allow_private, connect_limit=connect_limit)
            except _HopError as error:
                raise _error(url, current, error) from error
            if isinstance(response, bytes):
                return response
            current = response
    raise _error(url, current, f"there are more than {MAX_REDIRECTS} redirects; use the URL of the image itself")


def _error(url: str, current: str, why: object) -> LMStudioImageDownloadError:
    shown = redacted_url(url)
    hop = "" if current == url else f"it redirects to {redacted_url(current)}: "
    return LMStudioImageDownloadError(f"cannot download the image {shown}: {hop}{why}", url=shown)


def _check(text: str) -> httpx.URL:
    """Parse a URL, and make the checks that need no network."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        url = None
    if url is None or (url.port or 0) >= 2**16:  # raised here, because the parser's message may contain a password
        raise _HopError("the URL is not valid; check it, or pass the image's data")
    if url.scheme not in {"http", "https"} or not url.raw_host:
        raise _HopError("only http and https URLs with a host are downloaded; pass the image's data")
    if url.userinfo:
        raise _HopError("the URL contains a user name or password, which is not sent; pass the image's data")
    return url


async def _get(url: httpx.URL, *, allow_private: bool, connect_limit: float | None) -> bytes | str:
    """Return the image, or the URL to which the server redirects."""
    addresses = await _addresses(url, allow_private=allow_private)
    tls = (
        await asyncio.to_thread(ssl.create_default_context)  # reads files, which would block the I/O thread
        if url.scheme == "https"
        else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # unused; httpx's own default loads certificates
    )
    try:
        # A transport, because a client adds cookies, redirects, and proxies and credentials of the environment.
        async with httpx.AsyncHTTPTransport(verify=tls, trust_env=False) as transport:
            response = await _connect(transport, url, addresses, connect_limit)
            try:
                if response.has_redirect_location:
                    return _redirect(url, response.headers["Location"])
                return await _image(response)
            finally:
                await response.aclose()
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise _HopError(f"the connection failed ({reason}); check the URL, or pass the image's data") from error


async def _addresses(url: httpx.URL, *, allow_private: bool) -> list[str]:
    """Return the addresses to connect to. One that is not public rejects all: the next lookup may return it first."""
    host = url.raw_host.decode("ascii")
    try:
        addresses = await resolve(host, url.port or (443 if url.scheme == "https" else 80))
    except (OSError, UnicodeError) as error:
        raise _HopError(f"the name {host!r} cannot be resolved; check the URL") from error
    if allow_private or all(map(is_public_address, addresses)):
        return addresses
    raise _HopError(
        f"{host!r} is not at a public address; set allow_private_image_hosts=True (allow_image_download='private' in "
        "an adapter) if you trust whoever writes the messages, or pass the image's data"
    )


async def _connect(
    transport: httpx.AsyncHTTPTransport, url: httpx.URL, addresses: list[str], connect_limit: float | None
) -> httpx.Response:
    """Send the request to the first address that accepts it. Server and certificate check use the host's name."""
    headers = {"Host": url.netloc.decode("ascii"), **_HEADERS}
    extensions = {"sni_hostname": url.raw_host.decode("ascii"), "timeout": {"connect": connect_limit}}
    for address in addresses:
        request = httpx.Request("GET", url.copy_with(host=address), headers=headers, extensions=extensions)
        try:
            return await transport.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if address == addresses[-1]:
                raise
    raise AssertionError("a resolved host has an address")


def _redirect(url: httpx.URL, location: str) -> str:
    try:
        return str(url.join(location))
    except (httpx.InvalidURL, ValueError):
        raise _HopError("it redirects to a URL that is not valid; use the URL of the image itself") from None


async def _image(response: httpx.Response) -> bytes:
    """Read an image. Its bytes decide whether it is one, because the content type is not reliable."""
    _check_head(response)
    content = bytearray()
    async for part in response.aiter_raw():
        content += part
        if len(content) > MAX_BYTES:
            raise _too_large()
        if len(content) >= _SIGNATURE_SIZE:
            _check_kind(content, response)
    _check_kind(content, response)
    return bytes(content)


def _check_head(response: httpx.Response) -> None:
    if not response.is_success:
        status = f"{response.status_code} {httpx.codes.get_reason_phrase(response.status_code)}".rstrip()
        raise _HopError(f"the server responded with {status}; check the URL")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise _HopError(f"the server compressed it ({encoding[:40]!r}), unasked; pass the image's data")
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > MAX_BYTES:
        raise _too_large()


def _check_kind(content: bytearray, response: httpx.Response) -> None:
    if not content:
        raise _HopError("what came is empty; use the URL of the image itself")
    if image_format(content) is None:
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip()[:60]
        sent = f"what came, as {kind!r}," if kind else "what came"
        raise _HopError(f"{sent} is not a JPEG, PNG or WebP image; use the URL of the image itself")


def _too_large() -> _HopError:
    return _HopError(f"it is larger than {MAX_BYTES // 2**20} MB; pass a smaller image")
