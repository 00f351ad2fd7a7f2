"""Find a server without opening a WebSocket, and explain why none responds; both with `probe.py`."""

import contextlib
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.client.transport.connect.discovery import Attempt, discover
from lmstudio_integrations.client.transport.connect.probe import probe, speaks_http, without_blocked
from lmstudio_integrations.client.transport.flows import Flow, T
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.client.transport.mailboxes import IOTask, Mailbox
from lmstudio_integrations.errors import LMStudioRuntimeError, LMStudioValueError


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
