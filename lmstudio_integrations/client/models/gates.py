"""A limit on how many operations run on one model at once. `embeddings/long_texts.py` uses it for batches of texts.

Threads share one limit, and the tasks of each event loop have their own: a thread that blocks an event loop must not
wait for tasks of that loop.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from lmstudio_integrations.client.models.binding import Binding
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, T, wait_for
from lmstudio_integrations.client.transport.waiters import caller

if TYPE_CHECKING:
    import asyncio


@dataclass
class _Ticket:
    """One operation on a model, from its request to enter until its end. It may end before it was admitted.

    Attributes:
        key: The model, and the event loop of the caller.
        semaphore: What admitted it, until it ends.
        ended: Whether it has ended.
    """

    key: Hashable
    semaphore: "asyncio.Semaphore | None" = None
    ended: bool = False


class Gates:
    """The limits of one server, one for each model and kind of caller, on the I/O thread.

    A ticket keeps its semaphore alive; a semaphore without tickets is dropped.
    """

    def __init__(self) -> None:
        self.callers: dict[Hashable, _Ticket] = {}
        """The operation of each thread or task on each model; any thread may change it, in one step."""
        self._semaphores: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()

    async def enter(self, ticket: _Ticket, max_concurrency: int) -> None:
        """Wait until fewer than `max_concurrency` operations run, and admit this one."""
        from asyncio import Semaphore  # noqa: PLC0415 - lazy: keeps import cheap

        semaphore = self._semaphores.setdefault(ticket.key, Semaphore(max_concurrency))
        await semaphore.acquire()
        ticket.semaphore = semaphore
        if ticket.ended:  # it was cancelled meanwhile, and nobody else releases what it got
            self.exit(ticket)

    def exit(self, ticket: _Ticket) -> None:
        """End an operation, and admit the next one."""
        ticket.ended = True
        semaphore, ticket.semaphore = ticket.semaphore, None
        if semaphore is not None:
            semaphore.release()


def in_gate(
    dispatcher: Dispatcher[Any], binding: Binding, max_concurrency: int, work: Callable[[], Flow[T]]
) -> Flow[T]:
    """Run an operation when fewer than `max_concurrency` run on the model."""
    gates = dispatcher.shared(Gates)
    ticket = _Ticket((binding.kind, binding.key, dispatcher.make_waiter().loop))
    place = ticket.key, caller()
    if gates.callers.setdefault(place, ticket) is not ticket:
        return (yield from work())  # a signal handler must not wait for the call that it has interrupted
    try:
        yield from wait_for(dispatcher.run_task(lambda: gates.enter(ticket, max_concurrency)))
        return (yield from work())
    finally:
        del gates.callers[place]
        dispatcher.submit(gates.exit, ticket)
