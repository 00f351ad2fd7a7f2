"""Find a server without opening a WebSocket. Called by the clients; probes with `greeting.py` on the I/O thread."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from lmstudio_integrations.client.transport.addresses import Address, local_candidates
from lmstudio_integrations.client.transport.dispatcher import io_thread
from lmstudio_integrations.client.transport.flows import Flow, wait_for
from lmstudio_integrations.client.transport.tasks import IOTask
from lmstudio_integrations.client.transport.waiters import Waiter
from lmstudio_integrations.errors import LMStudioValueError

if TYPE_CHECKING:
    from lmstudio_integrations.client.transport.io_thread import IOThread


def is_reachable(api_host: str, make_waiter: "Callable[[IOThread], Waiter]") -> Flow[bool]:
    """Return whether an LM Studio responds at an address; false if it is not a valid address."""
    try:
        return (yield from locate(api_host, make_waiter)) is not None
    except LMStudioValueError:
        return False


def locate(api_host: str | None, make_waiter: "Callable[[IOThread], Waiter]") -> Flow[str | None]:
    """Return where an LM Studio responds: at the given address, else on this machine."""
    from lmstudio_integrations.client.transport.greeting import first_greeting  # noqa: PLC0415 - lazy: keeps import cheap

    addresses = local_candidates() if api_host is None else (Address.parse(api_host),)
    io = io_thread()
    search = IOTask(io, make_waiter(io), partial(first_greeting, addresses))
    io.submit(search.begin)
    found, _ = yield from wait_for(search)
    return found.netloc if found else None
