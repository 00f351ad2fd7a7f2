"""Work that several callers need at once: one of them does it, and the others wait for it."""

from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flight import Flight, Flights
from lmstudio_integrations.client.transport.flows import Flow, wait_for

Work: TypeAlias = Callable[[], Flow[None]]


def run_or_wait(
    dispatcher: Dispatcher[Any], flights: Flights, key: Hashable, work: Work, *, blocked: Work, shared: type[Exception]
) -> Flow[None]:
    """Run some work, or wait for the caller who runs the same.

    After a wait, look whether the work is done: its leader may have been cancelled, or failed with an error that is
    not shared.

    Args:
        dispatcher: The way to the server.
        flights: The work that runs now.
        key: Names the work.
        work: The work.
        blocked: Is run in place of a wait that would block the event loop which the leader needs.
        shared: The errors of the leader with which those who wait fail as well.
    """
    waiter = dispatcher.waiter()
    own = Flight(waiter)
    flight = flights.setdefault(key, own)  # in one step, so that no lock is needed: a finalizer could wait for that
    if flight.leader.is_lost:
        flight = flights[key] = own
    if flight is not own:
        yield from blocked() if waiter.would_stop(flight.leader) else wait_for(dispatcher.wait_for_flight(flight))
        return
    error: Exception | None = None
    try:
        yield from work()
    except shared as failure:
        error = failure
        raise
    finally:
        del flights[key]
        dispatcher.end_flight(own, error)
