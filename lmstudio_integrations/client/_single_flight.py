"""Work that several callers need at once: one of them does it, and the others wait. `_policies.py` loads models so."""

from collections.abc import Callable, Hashable
from copy import copy
from typing import Any, TypeAlias

from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, wait_for
from lmstudio_integrations.client.transport.waiters import Waiter
from lmstudio_integrations.errors import LMStudioTimeoutError


class Flight:
    """Work that is running.

    Args:
        leader: The waiter of the caller who does it.
    """

    def __init__(self, leader: Waiter) -> None:
        from asyncio import Event  # noqa: PLC0415 - the first call has loaded it

        self.leader = leader
        self._ended = Event()
        self._error: Exception | None = None

    async def wait(self, remaining_time: float | None) -> None:
        """Wait until it has ended; fail if it failed (on the I/O thread).

        Raises:
            LMStudioTimeoutError: If that takes longer than the caller has.
            Exception: The error of the leader, if it is shared.
        """
        from asyncio import timeout  # noqa: PLC0415 - the first call has loaded it

        try:
            async with timeout(remaining_time):
                await self._ended.wait()
        except TimeoutError:
            raise LMStudioTimeoutError(
                "Model load: another call loads the model, and timeout expired; raise timeout, or set it to None",
                timeout_name="timeout",
            ) from None
        if self._error is not None:
            raise copy(self._error)

    def end(self, error: Exception | None) -> None:
        """Wake those who wait (on the I/O thread)."""
        self._error = error
        self._ended.set()


Flights: TypeAlias = dict[Hashable, Flight]
Work: TypeAlias = Callable[[], Flow[None]]


def run_or_wait(
    dispatcher: Dispatcher[Any], flights: Flights, key: Hashable, work: Work, *, blocked: Work, shared: type[Exception]
) -> Flow[None]:
    """Run some work, or wait for the caller who runs the same.

    After a wait, check whether the work is done: its leader may have been cancelled, or may have failed with an error
    that is not shared.

    Args:
        dispatcher: The way to the server.
        flights: The work that is running.
        key: Names the work.
        work: The work.
        blocked: Runs in place of a wait that would block the event loop which the leader needs.
        shared: The errors of the leader that the waiting callers raise as well.
    """
    waiter = dispatcher.make_waiter()
    own = Flight(waiter)
    flight = flights.setdefault(key, own)  # one step, so no lock is needed: a finalizer could deadlock on one
    if flight.leader.is_lost:
        flight = flights[key] = own
    if flight is not own:
        remaining = dispatcher.remaining_time
        yield from (
            blocked()
            if waiter.would_block(flight.leader)
            else wait_for(dispatcher.run_task(lambda: flight.wait(remaining)))
        )
        return
    error: Exception | None = None
    try:
        yield from work()
    except shared as failure:
        error = failure
        raise
    finally:
        del flights[key]
        dispatcher.submit(own.end, error)
