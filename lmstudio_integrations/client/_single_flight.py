"""Work that several callers need at once: one of them does it, and the others wait for it.

No lock: a flow may be closed by the garbage collector, which runs at any time, also in a thread that holds one. Each
step changes a dict or a list at once.
"""

from collections.abc import Callable, Hashable
from copy import copy
from typing import TYPE_CHECKING, Any, TypeAlias

from lmstudio_integrations.client._waiters import Waiter

if TYPE_CHECKING:
    from lmstudio_integrations.client._flows import Flow
    from lmstudio_integrations.client._link import Link


class Flight:
    """Work that runs, and who waits for it.

    Args:
        leader: Who does it.
    """

    def __init__(self, leader: Waiter) -> None:
        self.leader = leader
        self.followers: list[Waiter] = []
        self.ended = False


Flights: TypeAlias = dict[Hashable, Flight]
Work: TypeAlias = "Callable[[], Flow[None]]"


class WaiterStep:
    """A wait for something that is no call, in a flow."""

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter


def fly(
    link: "Link[Any]",
    flights: Flights,
    key: Hashable,
    work: "Callable[[], Flow[None]]",
    blocked: "Callable[[], Flow[None]]",
) -> "Flow[None]":
    """Do some work, or wait for the caller who does the same, and fail as it fails.

    Whoever waited must look whether the work is done: its leader may have been cancelled.

    Args:
        link: The way to the server.
        flights: Work that runs.
        key: What is the same work.
        work: Does it.
        blocked: Is run instead of a wait that would never end: in the event loop that the leader needs.
    """
    waiter = link.waiter()
    own = Flight(waiter)
    flight = flights.setdefault(key, own)
    if flight is own:
        yield from _lead(link, flights, key, own, work)
    elif waiter.would_stop(flight.leader):
        yield from blocked()
    else:
        flight.followers.append(waiter)
        if flight.ended:  # between the two steps; whichever comes second wakes the waiter
            link.finish(waiter, None)
        step: Any = WaiterStep(waiter)
        yield step


def _lead(
    link: "Link[Any]", flights: Flights, key: Hashable, own: Flight, work: "Callable[[], Flow[None]]"
) -> "Flow[None]":
    error: Exception | None = None
    try:
        yield from work()
    except Exception as failure:
        error = failure
        raise
    finally:
        del flights[key]
        own.ended = True
        for follower in own.followers:
            link.finish(follower, copy(error))
