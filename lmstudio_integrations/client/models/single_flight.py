"""Do work once that several callers need at once: one of them, the leader, does it, and the others wait.

`policies.py` uses it, so that concurrent callers load a model once.
"""

from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, T, wait_for
from lmstudio_integrations.client.transport.waiters import Waiter, caller, copied
from lmstudio_integrations.errors import LMStudioTimeoutError


class Flight:
    """Work that is running.

    Args:
        leader: The waiter of the caller who does it.
    """

    def __init__(self, leader: Waiter) -> None:
        from asyncio import Event  # noqa: PLC0415 - lazy: keeps import cheap

        self.leader = leader
        self._thread_or_task = caller()
        self._ended = Event()
        self.error: Exception | None = None
        """The error of the leader, if the waiting callers share it."""

    def would_deadlock(self, waiter: Waiter) -> bool:
        """Whether waiting would block the leader: its event loop, or itself in a callback of its load."""
        return waiter.would_block(self.leader) or self._thread_or_task is caller()

    async def wait(self, remaining_time: float | None) -> None:
        """Wait until it has ended; fail if it failed. Must run on the I/O thread.

        Raises:
            LMStudioTimeoutError: If that takes longer than the caller has.
            Exception: The error of the leader, if it is shared.
        """
        from asyncio import timeout  # noqa: PLC0415 - lazy: keeps import cheap

        try:
            async with timeout(remaining_time):
                await self._ended.wait()
        except TimeoutError:
            raise LMStudioTimeoutError(
                "Model load: timed out waiting for another call that loads the model; raise timeout, or set it to None",
                timeout_name="timeout",
            ) from None
        if self.error is not None:
            raise copied(self.error)

    def end(self) -> None:
        """Wake the waiting callers. Must run on the I/O thread."""
        self._ended.set()


Flights: TypeAlias = dict[Hashable, Flight]
Work: TypeAlias = Callable[[], Flow[T]]


def run_or_wait(
    dispatcher: Dispatcher[Any],
    flights: Flights,
    key: Hashable,
    work: Work[T],
    *,
    on_deadlock: Work[T],
    shared: type[Exception],
) -> Flow[T | None]:
    """Run some work and return its result, or wait for the caller who runs the same, and return `None`.

    A caller that waited checks whether the work is done: the leader may have been cancelled, or may have failed with an
    error that is not shared.

    Args:
        dispatcher: Sends requests to the server.
        flights: The work that is running.
        key: Names the work.
        work: The work.
        on_deadlock: Runs instead of waiting if the wait would block the leader.
        shared: The errors of the leader that the waiting callers raise as well.
    """
    waiter = dispatcher.make_waiter()
    own = Flight(waiter)
    # `setdefault` is atomic. No lock: a finalizer may run this while its own thread holds the lock.
    flight = flights.setdefault(key, own)
    if flight.leader.is_lost:
        flight = flights[key] = own
    if flight is not own:
        if flight.would_deadlock(waiter):
            return (yield from on_deadlock())
        remaining = dispatcher.remaining_time
        yield from wait_for(dispatcher.run_task(lambda: flight.wait(remaining)))
        return None
    try:
        return (yield from work())
    except shared as failure:
        own.error = failure
        raise
    finally:
        if flights.get(key) is own:  # after a fork, several threads may take over from a lost leader
            del flights[key]
        dispatcher.submit(own.end)
