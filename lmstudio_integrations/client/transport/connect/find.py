"""Find a server without opening a WebSocket. Called by the clients and the command line."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.client.transport.connect.diagnosis import diagnose
from lmstudio_integrations.client.transport.connect.discovery import Attempt, discover
from lmstudio_integrations.client.transport.connect.probe import probe, without_blocked
from lmstudio_integrations.client.transport.flows import Flow, T
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.client.transport.mailboxes import Mailbox
from lmstudio_integrations.client.transport.tasks import IOTask
from lmstudio_integrations.errors import LMStudioValueError


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
