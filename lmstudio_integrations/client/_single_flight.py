"""Work that several callers need at once: one of them does it, and the others wait for it."""

from collections.abc import Callable, Hashable
from copy import copy
from typing import TYPE_CHECKING, Any, TypeAlias

from lmstudio_integrations.client._flows import Flow, wait_for
from lmstudio_integrations.client._waiters import Waiter
from lmstudio_integrations.errors import LMStudioTimeoutError

if TYPE_CHECKING:
    from lmstudio_integrations.client._link import Link


class Flight:
    """Work that runs.

    Args:
        leader: Who does it.
    """

    def __init__(self, leader: Waiter) -> None:
        from asyncio import Event  # noqa: PLC0415 - the first call has loaded it

        self.leader = leader
        self._ended = Event()
        self._error: Exception | None = None

    async def wait(self, time_left: float | None) -> None:
        """Wait until it has ended, and fail if it failed (on the I/O thread).

        Raises:
            LMStudioTimeoutError: If that takes longer than the caller has.
            Exception: The error of the leader, if it is one for all.
        """
        from asyncio import timeout  # noqa: PLC0415 - the first call has loaded it

        try:
            async with timeout(time_left):
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


def fly(
    link: "Link[Any]", flights: Flights, key: Hashable, work: Work, *, blocked: Work, shared: type[Exception]
) -> Flow[None]:
    """Do some work, or wait for the caller who does the same.

    Whoever waited must look whether the work is done: its leader may have been cancelled, or failed with an error of
    its own.

    Args:
        link: The way to the server.
        flights: Work that runs.
        key: What is the same work.
        work: Does it.
        blocked: Is run instead of a wait that would never end: in the event loop that the leader needs.
        shared: The errors with which all fail who wait.
    """
    waiter = link.waiter()
    own = Flight(waiter)
    flight = flights.setdefault(key, own)  # in one step, so that no lock is needed: a finalizer could wait for that
    if flight.leader.is_lost:
        flight = flights[key] = own
    if flight is not own:
        yield from blocked() if waiter.would_stop(flight.leader) else wait_for(link.wait_for_flight(flight))
        return
    error: Exception | None = None
    try:
        yield from work()
    except shared as failure:
        error = failure
        raise
    finally:
        del flights[key]
        link.end_flight(own, error)
