"""Which server of this machine is meant if no host is given: the one that LM Studio's own command line would use.

First the record of LM Studio and llmster, then the known ports, then Bionic's record: see
[discovery by file](docs/protocol.md#discovery-by-file). Nothing is written or started. Called on the I/O thread by
`opening.py`; probes with `probe.py`, and reads with `records.py`. At the end, the flows of those who only ask: where a
server is, and why none responds.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lmstudio_integrations._support.environment import HOST_VARIABLE, SERVER_FILE_VARIABLE
from lmstudio_integrations._support.suggestions import no_server
from lmstudio_integrations.client.concurrency.flows import Flow, T
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.concurrency.mailboxes import IOTask, Mailbox
from lmstudio_integrations.client.transport.connect import records
from lmstudio_integrations.client.transport.connect.addresses import (
    DEFAULT_PORT,
    Address,
    local_candidates,
    public_candidates,
    server_file_from_environment,
)
from lmstudio_integrations.client.transport.connect.probe import (
    Finding,
    ServerStatus,
    probe,
    probe_status,
    proxy_of,
    speaks_http,
    without_blocked,
)
from lmstudio_integrations.errors import LMStudioRuntimeError, LMStudioValueError

NOT_FOUND = "no LM Studio, llmster or Bionic found on this machine"

LM_STUDIO, BIONIC = frozenset({"lmstudio", "daemon"}), "bionic"
"""What servers call their application in `/lms-status`: LM Studio or llmster, and Bionic."""

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
        problem: Why no server is used there, with the remedy if there is one; `None` if one responds.
        tried: Whether it was tried.
        status: Which application responds there; `None` if none does, or it does not say.
    """

    address: str
    source: str
    problem: str | None = None
    tried: bool = True
    status: ServerStatus | None = None

    @property
    def server(self) -> Address | None:
        """The address of the server that responds; `None` if none does."""
        return Address.parse(self.address) if self.problem is None else None

    @property
    def package(self) -> str | None:
        """What the server that responds calls its application."""
        return self.status.package if self.status and self.problem is None else None

    def __str__(self) -> str:
        return f"{self.address}: {self.problem or 'a server responds'}"


async def discover() -> tuple[Address | None, tuple[Attempt, ...]]:
    """Return the address of this machine's server, and what was tried, in this order.

    The order is that of LM Studio's command line: the record of LM Studio and llmster, the known ports of these two,
    Bionic's record, and the first record again, which early versions of Bionic share. Then come the public ports, and
    whatever greets like LM Studio without saying which application it is.

    Raises:
        LMStudioRuntimeError: If tests block all addresses.
    """
    if server_file_from_environment():
        return _choose((await _try_record(records.shared_file),))
    shared = await _try_record(records.shared_file, {*LM_STUDIO, BIONIC})
    if shared.package in LM_STUDIO:
        return _choose((shared,))
    permitted = without_blocked((*local_candidates(), *public_candidates()))
    known = [each for each in local_candidates() if each in permitted and str(each) != shared.address]
    ports = await asyncio.gather(*(_try_port(each, "discovery port") for each in known))
    if found := next((each for each in ports if each.package in LM_STUDIO), None):
        return _choose((shared, *ports), found)
    ports = [_without_bionic(each) for each in ports]
    bionic = await _try_record(records.bionic_file, {BIONIC})
    tried = tuple(dict.fromkeys((shared, *ports, bionic)))  # both records may have failed alike
    if found := next((each for each in (bionic, shared) if each.package == BIONIC), None):
        return _choose(tried, found)
    public = [each for each in public_candidates() if each in permitted]
    return _choose((*tried, *await asyncio.gather(*(_try_port(each, "public port") for each in public))))


def chosen(attempts: Iterable[Attempt]) -> Attempt | None:
    """Return the attempt whose server is used: the first that responds; `None` if none does."""
    return next((each for each in attempts if each.problem is None), None)


def _choose(tried: tuple[Attempt, ...], found: Attempt | None = None) -> tuple[Address | None, tuple[Attempt, ...]]:
    """Return the address of a server, by default the first that responds, and the attempts, of which it is `chosen`."""
    found = found or chosen(tried)
    if found is None:
        return None, tried
    before = tried[: tried.index(found)]
    others = [each if each.problem else replace(each, problem="another server comes first") for each in before]
    return found.server, (*others, *tried[len(before) :])


def _without_bionic(attempt: Attempt) -> Attempt:
    """Return an attempt that does not count if Bionic responds: on these ports, it may be one of its developers."""
    if attempt.package != BIONIC:
        return attempt
    remedy = f"set {HOST_VARIABLE} to this address to use it"
    return replace(attempt, problem=f"Bionic listens there, which is found by its own record only; {remedy}")


async def _try_record(find: Callable[[], Path], packages: Collection[str] | None = None) -> Attempt:
    """Try the server that a record names.

    Args:
        find: Returns the path of the record.
        packages: The applications that may have written it; `None` accepts any.
    """
    named = SERVER_FILE_VARIABLE if packages is None else None
    try:
        path, port = await asyncio.to_thread(lambda: (path := find(), records.port_in(path)))  # disks block event loops
    except records.ServerFileError as error:
        return Attempt(error.path, named or "server file", error.reason)
    address = Address("127.0.0.1", port)
    attempt = Attempt(str(address), named or str(path))
    try:
        without_blocked([address])
    except LMStudioRuntimeError as error:  # tests block it
        return replace(attempt, problem=str(error))
    status = await probe_status(address)
    if isinstance(status, Finding):
        return replace(attempt, problem=status.reason)
    if packages is not None and status.package not in packages:
        problem = f"{status.application} listens there, whose record this is not"
        return replace(attempt, problem=problem, status=status)
    return replace(attempt, status=status)


async def _try_port(address: Address, source: str) -> Attempt:
    """Try the server on a port. One that greets, but has no status, is of a version or a proxy that does not say."""
    attempt = Attempt(str(address), source)
    status = await probe_status(address)
    if isinstance(status, ServerStatus):
        return replace(attempt, status=status)
    finding = await probe(address) if status.answers else status
    return replace(attempt, problem=finding and finding.reason)


def not_found(attempts: Iterable[Attempt]) -> str:
    """Return the error for a machine on which no LM Studio was found."""
    places: dict[str, list[str]] = {}
    for each in attempts:
        place = each.address.partition("://")[2] or each.address
        is_port = each.source.endswith(" port")
        places.setdefault(each.problem or "", []).append(place if is_port else f"{place} ({each.source})")
    failures = "; ".join(f"{', '.join(found)}: {problem}" for problem, found in places.items())
    return f"{NOT_FOUND}\n  tried: {failures}\n  suggestion: {no_server(DEFAULT_PORT)}"


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
    return records.is_in_own_file(address.port)


def is_own_listener(port: int, table: str, uid: int) -> bool:
    """Whether something listens on a port, and all that does belongs to a user or to root, by Linux's tables."""
    rows = [line.split() for line in table.splitlines() if line]
    owners = {int(row[7]) for row in rows if row[1].endswith(f":{port:04X}") and row[3] == _LISTENING}
    return bool(owners) and owners <= {uid, _ROOT} and _NOBODY not in owners


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


def examine(address: Address, source: str, make_mailbox: Callable[[IOThread], Mailbox]) -> Flow[Attempt]:
    """Try an address that the user gave: which application responds there, or why none does, with the remedy."""
    return (yield from _on_io_thread(partial(_examine, address, source), make_mailbox))


async def _examine(address: Address, source: str) -> Attempt:
    problem = await diagnose(address)
    # The greeting was requested without the proxy: a client finds out where that leads.
    if problem and proxy_of(address):
        return Attempt(str(address), source)
    if problem:
        return Attempt(str(address), source, problem)
    status = await probe_status(address)
    return Attempt(str(address), source, status=None if isinstance(status, Finding) else status)


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
