"""Looking for a server without connecting to it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lmstudio_integrations.client._address import Address, local_candidates
from lmstudio_integrations.client._flows import Flow
from lmstudio_integrations.client._link import io_thread
from lmstudio_integrations.client._waiters import Waiter

if TYPE_CHECKING:
    from lmstudio_integrations.client._io import IOThread


class _Search:
    """A search on the I/O thread, waited for like a call."""

    def __init__(self, io: "IOThread", waiter: Waiter, addresses: tuple[Address, ...]) -> None:
        self.waiter = waiter
        self._addresses = addresses
        self._loop = io.loop
        io.submit(self._begin)

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._search())

    async def _search(self) -> None:
        from lmstudio_integrations.client._probe import first_greeting  # noqa: PLC0415 - see `_link.py`

        found, _ = await first_greeting(self._addresses)
        self.waiter.put(found)
        self.waiter.finish(None)


def locate(api_host: str | None, make_waiter: "Callable[[IOThread], Waiter]") -> Flow[str | None]:
    """Return where an LM Studio answers: at the given address, else on this machine."""
    addresses = local_candidates() if api_host is None else (Address.parse(api_host),)
    io = io_thread()
    search: Any = _Search(io, make_waiter(io), addresses)
    (found,) = yield search
    return found.netloc if found else None
