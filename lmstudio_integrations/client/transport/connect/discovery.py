"""Which LM Studio of this machine is meant if no host is given: the one that LM Studio's own command line would use.

First the file in which LM Studio writes where it listens, then its usual ports: see
[discovery by file](docs/protocol.md#discovery-by-file). Nothing is written or started. Called on the I/O thread by
`opening.py`; probes with `probe.py`. At the end, the flows of those who only ask: where a server is, and why none
responds.
"""

import asyncio
import contextlib
import os
import ssl
import stat
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from lmstudio_integrations._support.environment import SERVER_FILE_VARIABLE
from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.client.transport.connect.addresses import (
    DISCOVERY_PORTS,
    Address,
    local_candidates,
    server_file_from_environment,
)
from lmstudio_integrations.client.transport.connect.probe import probe, probe_status, speaks_http, without_blocked
from lmstudio_integrations.client.transport.connect.suggestions import no_server
from lmstudio_integrations.client.transport.flows import Flow, T
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.client.transport.mailboxes import IOTask, Mailbox
from lmstudio_integrations.errors import LMStudioOSError, LMStudioRuntimeError, LMStudioValueError

NOT_FOUND = "no LM Studio found on this machine"

_MAX_FILE_BYTES = 65536

_NETWORK_TABLES = "/proc/net/tcp", "/proc/net/tcp6"
"""Linux lists its TCP sockets there, each with the user that has made it."""
_LISTENING = "0A"
_ROOT, _NOBODY = 0, 65534
"""Root may read the secrets of all. In a user namespace, whoever has no number there is shown as nobody."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One place where a server was looked for, and what happened there.

    Attributes:
        address: The address; the path of a file if it names none.
        source: Why it was tried: what names it.
        problem: Why no LM Studio is used there, with the remedy if there is one; `None` if one responds.
        tried: Whether it was tried.
    """

    address: str
    source: str
    problem: str | None = None
    tried: bool = True

    def __str__(self) -> str:
        return f"{self.address}: {self.problem or 'a server responds'}"


class ServerFileError(LMStudioOSError):
    """A file does not tell where the server listens, or where LM Studio's folder is."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path: str = str(path) if str(path).isprintable() else ascii(str(path))
        self.reason: str = reason
        super().__init__(f"{self.path}: {reason}")


async def discover() -> tuple[Address | None, tuple[Attempt, ...]]:
    """Return the address of this machine's LM Studio, and what was tried, in this order: what is written down first.

    Raises:
        LMStudioRuntimeError: If tests block all addresses.
    """
    address, attempt = await _announced()
    if address or server_file_from_environment():
        return address, (attempt,)
    candidates = without_blocked(local_candidates())
    findings = dict(zip(candidates, await asyncio.gather(*map(probe, candidates)), strict=True))
    ports = [Attempt(str(each), _source(each), finding and finding.reason) for each, finding in findings.items()]
    return next((each for each, finding in findings.items() if finding is None), None), (attempt, *ports)


def not_found(attempts: Iterable[Attempt]) -> str:
    """Return the error for a machine on which no LM Studio was found."""
    places: dict[str, list[str]] = {}
    for each in attempts:
        place = each.address.partition("://")[2] or each.address
        is_port = each.source.endswith(" port")
        places.setdefault(each.problem or "", []).append(place if is_port else f"{place} ({each.source})")
    failures = "; ".join(f"{', '.join(found)}: {problem}" for problem, found in places.items())
    return f"{NOT_FOUND}\n  tried: {failures}\n  suggestion: {no_server()}"


def may_get_secrets(address: Address) -> bool:
    """Whether a server that was found may get the token: this user has named it, or runs it, as far as can be told."""
    if server_file_from_environment():
        return True
    if os.name != "nt":
        table = ""
        for path in _NETWORK_TABLES:
            with contextlib.suppress(OSError, ValueError):
                table += Path(path).read_text("ascii")
        if table:
            return is_own_listener(address.port, table, os.geteuid())
    return _is_in_own_file(address)


def is_own_listener(port: int, table: str, uid: int) -> bool:
    """Whether something listens on a port, and all that does belongs to a user or to root, by Linux's tables."""
    rows = [line.split() for line in table.splitlines() if line]
    owners = {int(row[7]) for row in rows if row[1].endswith(f":{port:04X}") and row[3] == _LISTENING}
    return bool(owners) and owners <= {uid, _ROOT} and _NOBODY not in owners


def _is_in_own_file(address: Address) -> bool:
    """Whether LM Studio has written down an address, in a file that only this user can write."""
    try:
        path = server_file()
        status = path.stat()
        # On Windows, files have no owner here; the folder of a user is closed to others.
        is_own = os.name == "nt" or (
            status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        )
        return is_own and _port_in(path) == address.port
    except OSError:  # a `ServerFileError`, too
        return False


def _source(address: Address) -> str:
    return "discovery port" if address.port in DISCOVERY_PORTS else "default port"


def server_file() -> Path:
    """Return the file in which LM Studio writes where its server listens.

    Raises:
        ServerFileError: If LM Studio's folder cannot be found.
    """
    named = server_file_from_environment()
    return _home() / ".internal" / "http-server.json" if named is None else Path(named)


def announced_port() -> int | None:
    """Return the port that the file names now; `None` if it names none, or cannot be read at once."""
    try:
        return _port_in(server_file())
    except Exception:  # noqa: BLE001 - also that of a program that lets no event loop read a file
        return None


async def _announced() -> tuple[Address | None, Attempt]:
    """Try the address that LM Studio has written down."""
    named = SERVER_FILE_VARIABLE if server_file_from_environment() else None
    try:
        path, port = await asyncio.to_thread(_read_server_file)
    except ServerFileError as error:
        return None, Attempt(error.path, named or "server file", error.reason)
    address = Address("127.0.0.1", port)
    try:
        without_blocked([address])
        finding = await probe_status(address)
        problem = finding and finding.reason
    except LMStudioRuntimeError as error:  # tests block it
        problem = str(error)
    return (None if problem else address), Attempt(str(address), named or str(path), problem)


def _read_server_file() -> tuple[Path, int]:
    """Return LM Studio's file and the port in it. In a thread, because disks block event loops.

    Raises:
        ServerFileError: If there is none, or it names no port.
    """
    path = server_file()
    return path, _port_in(path)


def _home() -> Path:
    """Return the folder of LM Studio.

    Raises:
        ServerFileError: If the user has no folder, or the file that names LM Studio's is invalid.
    """
    try:
        user = Path(os.path.realpath(Path.home()))
    except RuntimeError as error:
        raise ServerFileError(Path("~"), "the home folder of this user is unknown") from error
    pointer = user / ".lmstudio-home-pointer"
    if os.path.lexists(pointer):
        home = Path(_read(pointer).strip())
        if "\0" in str(home) or not home.is_absolute():
            raise ServerFileError(pointer, "it does not have the absolute path of a folder")
        return home
    before = user / ".cache" / "lm-studio"
    return before if os.path.exists(before) else user / ".lmstudio"  # noqa: PTH110 - raises nothing if it is not permitted


def _port_in(path: Path) -> int:
    """Return the port that a file names.

    Raises:
        ServerFileError: If it names none.
    """
    try:
        content = from_json(_read(path))
    except ValueError as error:
        raise ServerFileError(path, "it is not JSON") from error
    port = content.get("port") if is_mapping(content) else None
    if type(port) is not int or not 0 < port < 65536:
        raise ServerFileError(path, "it has no 'port' from 1 to 65535")
    return port


def _read(path: Path) -> str:
    """Return the text of a small file.

    Raises:
        ServerFileError: If that is not possible at once.
    """
    content: bytes | None = None
    try:
        if stat.S_ISREG(path.stat().st_mode):  # the end of a pipe may never come
            with path.open("rb") as file:
                content = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise ServerFileError(path, "it does not exist") from error
    except OSError as error:
        raise ServerFileError(path, f"it cannot be read ({error.strerror or error})") from error
    if content is None:
        raise ServerFileError(path, "it is not a file")
    if len(content) > _MAX_FILE_BYTES:
        raise ServerFileError(path, "it is too large")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ServerFileError(path, "it is not UTF-8") from error


def is_reachable(api_host: str, make_mailbox: Callable[[IOThread], Mailbox]) -> Flow[bool]:
    """Return whether an LM Studio responds at an address; false if it is not a valid address."""
    try:
        return (yield from locate(api_host, make_mailbox)) is not None
    except LMStudioValueError:
        return False


def locate(api_host: str | None, make_mailbox: Callable[[IOThread], Mailbox]) -> Flow[str | None]:
    """Return where an LM Studio responds: at the given address, else on this machine."""
    if api_host is None:
        found, _ = yield from search(make_mailbox)
        return found.netloc if found else None
    address = Address.parse(api_host)
    without_blocked([address])
    return address.netloc if (yield from _on_io_thread(partial(probe, address), make_mailbox)) is None else None


def search(make_mailbox: Callable[[IOThread], Mailbox]) -> Flow[tuple[Address | None, tuple[Attempt, ...]]]:
    """Return the address of this machine's LM Studio, and what was tried, what is written down first."""
    return (yield from _on_io_thread(discover, make_mailbox))


def explain(address: Address, make_mailbox: Callable[[IOThread], Mailbox]) -> Flow[str | None]:
    """Return why no LM Studio responds at an address, with the remedy; `None` if one does."""
    return (yield from _on_io_thread(partial(diagnose, address), make_mailbox))


def _on_io_thread(work: Callable[[], Coroutine[Any, Any, T]], make_mailbox: Callable[[IOThread], Mailbox]) -> Flow[T]:
    io = IOThread.current()
    task = IOTask(io, make_mailbox(io), work)
    io.submit(task.begin)
    return (yield from task.result())


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
    finding = await probe(address, context)
    if finding is None:
        return None
    if finding.wrong_scheme and await speaks_http(replace(address, tls=not address.tls)):
        if address.tls:
            return "TLS failed: the server speaks plain http; use ws:// in place of wss://, or http:// in place of https://"
        return "the server speaks TLS; use wss:// in place of ws://, or https:// in place of http://"
    if not finding.remedy:
        return finding.reason
    return f"{finding.reason}; {await _other_address(address, context) or finding.remedy}"


async def _other_address(address: Address, context: ssl.SSLContext | None) -> str | None:
    """Return which address to use instead: the same without a path, or the one of an LM Studio on this machine."""
    root = replace(address, prefix="")
    if address.prefix and await probe(root, context) is None:
        return f"LM Studio is at {root}, without {address.prefix!r}: set host to that"
    if address.is_loopback:
        with contextlib.suppress(LMStudioRuntimeError):  # tests block the others
            other, _ = await discover()
            return (
                None
                if other is None
                else f"an LM Studio listens at {other.netloc}: set host to that, or leave it unset"
            )
    return None
