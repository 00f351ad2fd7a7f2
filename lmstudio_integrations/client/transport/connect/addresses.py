"""Addresses, credentials and trusted certificates: given, or from the environment.

The clients and the adapters read their settings with it; `connections.py` keeps one connection for each `Target`. It
imports no other module of this folder. The rules: [discovery](docs/protocol.md#discovery),
[credentials](docs/protocol.md#credentials).
"""

import contextlib
import ipaddress
import os
import re
import ssl
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, TypeAlias
from urllib.parse import urlsplit

from lmstudio_integrations._support.environment import (
    HOST_VARIABLE,
    SERVER_FILE_VARIABLE,
    TOKEN_VARIABLES,
    USER_AGENT,
)
from lmstudio_integrations._support.secrets import HIDDEN, TOKEN_PREFIX, holds_credentials, holds_secret
from lmstudio_integrations._support.suggestions import token_source, token_suggestion
from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.errors import LMStudioAuthenticationError, LMStudioValueError
from lmstudio_integrations.protocol.envelope import TOKEN_FORM, split_token

DEFAULT_PORT = 1234
"""The port of the server that users switch on in LM Studio, and mostly in Bionic."""
BIONIC_PORT = 1235
"""That of Bionic, where no other was saved."""
DISCOVERY_PORTS = (41343, 52993, 16141, 39414, 22931)
"""The ports on which LM Studio always listens, preferred first."""

MAX_MESSAGE_BYTES = 256 * 1024 * 1024
"""Size of the largest message that a client accepts by default."""

Hosts: TypeAlias = str | Sequence[str | tuple[str, str]] | None
"""The servers of an adapter, and devices of them, as users give them."""

_SCHEMES = {"": False, "ws": False, "http": False, "wss": True, "https": True}
_API_SUFFIX = r"/(api/)?v[01](/(chat|chat/completions|completions|embeddings|messages|models|responses))?$"
"""The path of an HTTP API of LM Studio, which people copy from programs that use it."""
_HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address. `prefix` is the path before the namespaces, behind a reverse proxy."""

    host: str
    port: int
    tls: bool = False
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `host`, `host:port`, or a URL of http, https, ws or wss.

        Without a port, it is 443 for https and wss, else LM Studio's own, 1234, also for http. An IPv6 address is in
        brackets. A trailing `/v1` is dropped, with or without an endpoint.

        Raises:
            LMStudioValueError: If it is not one of these.
        """
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            text = _joined(text)
        return _parsed(text)

    @property
    def netloc(self) -> str:
        """`host:port`; an IPv6 address is in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine."""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"

    @property
    def server(self) -> "Address":
        """The same server by one name for all spellings of this machine."""
        return replace(self, host="127.0.0.1") if self.is_loopback else self

    def url(self, namespace: str) -> str:
        """Return the WebSocket URL of a namespace."""
        return f"{self}/{namespace}"

    def __str__(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://{self.netloc}{self.prefix}"


@lru_cache(maxsize=64)  # adapters read their host at each call; an error is raised anew each time
def _parsed(text: str) -> Address:
    variable = os.environ.get(HOST_VARIABLE, "")
    source = HOST_VARIABLE if text and text in {variable, *variable.split(",")} else "host"
    given, text = text, text.strip().rstrip(", ")
    if TOKEN_PREFIX in text:
        raise LMStudioValueError(f"{source} contains an API token, which is not shown here; pass it as api_token")
    if holds_credentials(text):
        raise LMStudioValueError(
            f"{source} must not contain credentials, a query or a fragment; pass the token as api_token"
        )
    if "," in text:
        raise LMStudioValueError(
            f"{source} {text!r} names several servers, and a client has one; name one of them as host, or give "
            "them all to an adapter, such as ChatLMStudio(host=[…])"
        )
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        if _is_ipv6((text.partition("://")[2] or text).partition("/")[0]):
            raise LMStudioValueError(
                f"{source} {given!r} is not an address; write an IPv6 address in brackets, such as [::1]:1234"
            ) from error
        reason = "its port is no number from 1 to 65535" if "Port" in str(error) else error
        raise LMStudioValueError(f"{source} {given!r} is not an address: {reason}; write host:port") from error
    if parts.scheme not in _SCHEMES or not host or port == 0:
        raise LMStudioValueError(f"{source} {given!r} is not an address; write host:port, or a ws:// or wss:// URL")
    tls = _SCHEMES[parts.scheme]
    prefix = re.sub(_API_SUFFIX, "", parts.path.rstrip("/"))
    return Address(host, port or (443 if tls else DEFAULT_PORT), tls, prefix)


def _is_ipv6(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(text).version == 6
    return False


def _joined(hosts: Any) -> str:
    """Return several hosts in one string, so that they get the same error as in one.

    Raises:
        LMStudioValueError: If it is something else.
    """
    shown = HIDDEN if holds_secret(hosts, "host") else repr(hosts)
    listed = hosts if issubclass(type(hosts), list | tuple) else ()
    names = [host for host in listed if isinstance(host, str)]
    if len(names) < 2:
        raise LMStudioValueError(f"host must be a string, such as host:port; got {shown}{_host_remedy(hosts)}")
    return ", ".join(names)


def _host_remedy(host: object) -> str:
    """Return what to write for a port, or for an object that has an address, such as an emulator."""
    if isinstance(host, int) and not isinstance(host, bool):
        return f"; write '127.0.0.1:{host}'"
    return "; write its .address" if hasattr(type(host), "address") else ""


def server_file_from_environment() -> str | None:
    """Return the file that the environment names as the one with the server's port."""
    return os.environ.get(SERVER_FILE_VARIABLE) or None


def host_from_environment() -> str | None:
    """Return the host that the environment names, which may change between two calls."""
    return os.environ.get(HOST_VARIABLE) or None


def servers_of_environment() -> frozenset[Address] | None:
    """Return the servers that the environment names, for which its token is; `None` if it names none.

    If it names none, its token is for the servers that the program uses. A name that is no address is left out.
    """
    text = host_from_environment()
    if text is None:
        return None
    servers: set[Address] = set()
    for name in filter(str.strip, text.split(",")):
        with contextlib.suppress(LMStudioValueError):  # raised where it is used
            servers.add(Address.parse(name).server)
    return frozenset(servers)


def places_of(hosts: Hosts) -> tuple[tuple[str | None, str | None], ...]:
    """Return the given hosts, else those of the environment, each with the device of it that is meant, if one is.

    Args:
        hosts: One host, several in a list, or several in a string with commas between them. In a list, `(host, device)`
            is a linked device of a host. `None` is the LM Studio found on this machine.

    Raises:
        LMStudioValueError: If a list is empty or names a host twice, or a name in it is not an address.
    """
    if hosts is None or isinstance(hosts, str):
        text = hosts or host_from_environment()
        if text is None or "," not in text:
            return ((text, None),)
        hosts = [name for name in text.split(",") if name.strip()]
    names: dict[str, str] = {}
    places: dict[tuple[str, str | None], tuple[str, str | None]] = {}
    for place in hosts:
        name, device = (place, None) if isinstance(place, str) else _pair(place)
        address = str(Address.parse(name))
        if (address, device) in places:
            of_device = f" and their device {device!r} the same" if device else ""
            raise LMStudioValueError(
                f"hosts {names[address]!r} and {name!r} are the same server{of_device}; name it once"
            )
        places[address, device] = names.setdefault(address, name.strip()), device
    if not places:
        raise LMStudioValueError("host must name at least one server, or be None; got an empty list")
    return tuple(places.values())


def _pair(place: object) -> tuple[str, str]:
    match place:
        case [str(host), str(device)] if device.strip():
            return host, device
        case _:
            raise LMStudioValueError(f"a host must be an address, or a pair of an address and a device; got {place!r}")


def hosts_of(hosts: Hosts) -> tuple[str | None, ...]:
    """Return the servers of hosts, each once; see `places_of`.

    Raises:
        LMStudioValueError: If a list is empty or names a host twice, or a name in it is not an address.
    """
    return tuple(dict.fromkeys(host for host, _ in places_of(hosts)))


def resolved_hosts(hosts: Hosts) -> tuple[str | None, ...]:
    """Return the addresses of servers, the same for all spellings and orders; see `hosts_of`.

    Raises:
        LMStudioValueError: If a host is not an address.
    """
    names = hosts_of(hosts)
    if len(names) == 1:
        return names if names[0] is None else (normalized(names[0]),)
    return tuple(sorted([normalized(host) for host in names if host is not None]))


@lru_cache(maxsize=256)
def normalized(host: str) -> str:
    """Return the address of a server, the same for all spellings.

    Raises:
        LMStudioValueError: If the host is not an address.
    """
    return str(Address.parse(host))


def local_candidates() -> tuple[Address, ...]:
    """Return the addresses on which LM Studio and llmster always listen, most likely first."""
    return tuple(Address("127.0.0.1", port) for port in DISCOVERY_PORTS)


def public_candidates() -> tuple[Address, ...]:
    """Return the addresses of the servers that users switch on."""
    return tuple(Address("127.0.0.1", port) for port in (DEFAULT_PORT, BIONIC_PORT))


@dataclass(frozen=True, slots=True)
class Credentials:
    """The identity of a client. Neither part of a token is ever shown."""

    identifier: str = field(repr=False)
    passkey: str = field(repr=False)

    @classmethod
    def from_token(cls, token: str) -> Self:
        """Split an API token.

        Raises:
            LMStudioAuthenticationError: If it is malformed; the message does not contain it.
        """
        parts = split_token(token)
        if parts is None:
            raise LMStudioAuthenticationError(
                f"the API token {token_source(token)} is malformed; it must be {TOKEN_FORM}; copy it again from LM "
                "Studio, or pass none if the server requires none"
            )
        return cls(*parts)

    @classmethod
    def new_guest(cls) -> Self:
        """Make an identity that needs no token."""
        return cls(f"guest:{uuid.uuid4()}", str(uuid.uuid4()))


@dataclass(frozen=True, slots=True)
class Target:
    """Which server, and with which credentials. Clients with equal targets share their connections.

    Attributes:
        address: The server; `None` finds one on this machine when it connects.
        token: The API token; `None` is a guest.
        placeholder: What was given in its place and is no token of LM Studio, such as "not-needed"; it is never sent.
        headers: Additional HTTP headers, also of the WebSocket handshake.
        ssl_context: Checks the server's certificate; `None` uses the system's certificates.
        max_message_bytes: The largest message that the client accepts; `None` sets no limit.
    """

    address: Address | None
    token: str | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    max_message_bytes: int | None = MAX_MESSAGE_BYTES
    placeholder: str | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        host: str | None,
        token: str | None,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        max_message_bytes: int | None = MAX_MESSAGE_BYTES,
    ) -> Self:
        """Complete the given settings from the environment, whose token is only for the servers that it names.

        Raises:
            LMStudioValueError: If the host is not an address.
        """
        named, host = host, host_from_environment() if host in (None, "") else host
        if token is not None and not isinstance(token, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise LMStudioValueError(f"api_token must be a string; got {type(token).__name__}")
        address = None if host in (None, "") else Address.parse(host)
        servers = servers_of_environment()
        is_for_it = not named or servers is None or (address is not None and address.server in servers)
        given = list(filter(None, (token, *(map(os.environ.get, TOKEN_VARIABLES) if is_for_it else ()))))
        token = next((text for text in given if TOKEN_PREFIX in text), None)
        placeholder = None if token else next(iter(given), None)
        if ssl_context is not None and not (address and address.tls):
            raise LMStudioValueError(
                f"ssl_context (ca_file in the adapters) needs a wss:// or https:// host; the host is {host!r}"
            )
        return cls(address, token, checked_headers(headers), ssl_context, max_message_bytes, placeholder)

    def __str__(self) -> str:
        return self.address.netloc if self.address else "this machine"

    @property
    def http_headers(self) -> dict[str, str]:
        """The headers of a request over HTTP: those given, with the name of the package and the token unless given."""
        own = {"User-Agent": USER_AGENT}
        if self.token is not None:
            own["Authorization"] = f"Bearer {self.token}"
        given = {name.lower() for name, _ in self.headers}
        return {**{name: value for name, value in own.items() if name.lower() not in given}, **dict(self.headers)}

    def advice_after_rejection(self, used: "Target") -> str:
        """Return what helps if a server rejects these credentials.

        Args:
            used: The same, with the server that was used, and the token that it got.
        """
        withheld_from = str(used) if self.token and not used.token else None
        return token_suggestion(self.token, self.placeholder, withheld_from)

    def credentials(self) -> Credentials | None:
        """Return the credentials of the token; `None` for a guest.

        Raises:
            LMStudioAuthenticationError: If the token is malformed.
        """
        return Credentials.from_token(self.token) if self.token else None


def source_of(address: Address) -> str:
    """Return a note for an address that comes from the environment."""
    try:
        named = resolved_hosts(None) if os.environ.get(HOST_VARIABLE) else ()
    except LMStudioValueError:
        return ""
    return f" ({HOST_VARIABLE})" if str(address) in named else ""


def unencrypted(target: Target) -> str | None:
    """Return a warning if the token of a client crosses the network in plain text."""
    address = target.address
    if not target.token or address is None or address.tls or address.is_loopback:
        return None
    return f"the API token is sent unencrypted to {address.netloc}; put a TLS proxy in front of it"


def checked_headers(headers: object) -> tuple[tuple[str, str], ...]:
    """Return HTTP headers as pairs of name and value. Errors show no value, because it may be a secret.

    Raises:
        LMStudioValueError: If they are not a mapping of strings, or one cannot be sent.
    """
    if headers is None:
        return ()
    if not is_mapping(headers):
        raise LMStudioValueError(f"headers must be a dict of names and values; got a {type(headers).__name__}")
    for name, value in headers.items():
        if not (isinstance(name, str) and re.fullmatch(_HEADER_NAME, name)):
            raise LMStudioValueError(f"headers must have names of letters, digits and hyphens; {name!r} cannot be sent")
        if not (isinstance(value, str) and value.isprintable()):
            raise LMStudioValueError(
                f"headers must have strings without control characters as values; {name!r} has not"
            )
    return tuple(headers.items())


def context_trusting(ca_file: str) -> ssl.SSLContext:
    """Return a context that trusts only the certificates of a file.

    The same file gives the same context, because clients with equal contexts share connections.

    Raises:
        LMStudioValueError: If the file cannot be read, or contains no certificate in PEM form.
    """
    try:
        stat = Path(ca_file).stat()
        return _load(ca_file, stat.st_mtime_ns, stat.st_size)
    except ssl.SSLError as error:
        raise LMStudioValueError(
            f"ca_file {ca_file!r} contains no certificate in PEM form: {error.reason or error}"
        ) from error
    except (OSError, ValueError) as error:  # a path with a null character is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise LMStudioValueError(f"ca_file {ca_file!r} cannot be read: {reason}") from error


@lru_cache(maxsize=16)
def _load(ca_file: str, _modified_at: int, _size: int) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)
