"""A limit on how many operations run on one model at once. `_fitting.py` uses it for batches of texts.

Threads share one limit, and the tasks of each event loop have their own: a thread that blocks an event loop must not
wait for tasks of that loop.
"""

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from lmstudio_integrations.client._binding import Binding
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, wait_for

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


class _Ticket:
    """One operation. It may end before it was admitted."""

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.semaphore: asyncio.Semaphore | None = None
        """What admitted it, until it ends."""
        self.ended = False


class Gates:
    """The limits of one server, on the I/O thread; those without operations are dropped."""

    def __init__(self) -> None:
        self._semaphores: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()

    async def enter(self, ticket: _Ticket, most: int) -> None:
        """Wait until fewer than `most` operations run, and admit this one."""
        from asyncio import Semaphore  # noqa: PLC0415 - the I/O thread has loaded it

        semaphore = self._semaphores.setdefault(ticket.key, Semaphore(most))
        await semaphore.acquire()
        ticket.semaphore = semaphore
        if ticket.ended:
            self.exit(ticket)

    def exit(self, ticket: _Ticket) -> None:
        """End an operation, and admit the next one."""
        ticket.ended = True
        semaphore, ticket.semaphore = ticket.semaphore, None
        if semaphore is not None:
            semaphore.release()


def in_gate(dispatcher: Dispatcher[Any], binding: Binding, most: int, work: Callable[[], Flow[T]]) -> Flow[T]:
    """Run an operation when fewer than `most` run on the model."""
    gates, ticket = dispatcher.shared(Gates), _Ticket((binding.kind, binding.key, dispatcher.make_waiter().loop))
    try:
        yield from wait_for(dispatcher.run_task(lambda: gates.enter(ticket, most)))
        return (yield from work())
    finally:
        dispatcher.submit(gates.exit, ticket)
