"""Work that several callers need at once: one of them does it, and the others wait for it."""

from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

from lmstudio_integrations.client._flight import Flight, Flights
from lmstudio_integrations.client._flows import Flow, wait_for
from lmstudio_integrations.client._link import Link

Work: TypeAlias = Callable[[], Flow[None]]


def fly(
    link: Link[Any], flights: Flights, key: Hashable, work: Work, *, blocked: Work, shared: type[Exception]
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
