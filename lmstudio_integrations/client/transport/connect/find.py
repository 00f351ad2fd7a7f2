"""Find a server without opening a WebSocket. Called by the clients and the command line; probes with `probe.py`."""

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from lmstudio_integrations.client.transport.connect.addresses import Address, local_candidates
from lmstudio_integrations.client.transport.connect.probe import diagnose, first_greeting
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
    address, _ = yield from search(local_candidates() if api_host is None else (Address.parse(api_host),), make_mailbox)
    return address.netloc if address else None


def search(
    addresses: Sequence[Address], make_mailbox: Callable[[IOThread], Mailbox]
) -> Flow[tuple[Address | None, tuple[str, ...]]]:
    """Return the first address at which an LM Studio responds, and what happened at the others."""
    return (yield from _on_io_thread(partial(first_greeting, addresses), make_mailbox))


def explain(address: Address, make_mailbox: Callable[[IOThread], Mailbox]) -> Flow[str | None]:
    """Return why no LM Studio responds at an address, with the remedy; `None` if one does."""
    return (yield from _on_io_thread(partial(diagnose, address), make_mailbox))


def _on_io_thread(work: Callable[[], Coroutine[Any, Any, T]], make_mailbox: Callable[[IOThread], Mailbox]) -> Flow[T]:
    io = IOThread.current()
    task = IOTask(io, make_mailbox(io), work)
    io.submit(task.begin)
    return (yield from task.result())
