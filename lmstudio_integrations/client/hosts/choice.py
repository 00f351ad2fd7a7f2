"""The policy for several hosts: which one gets the next call, and on which one a load is started meanwhile. Pure."""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

from lmstudio_integrations.types.hosts import HostStatus


class HostChoice(NamedTuple):
    """The hosts of a call, by their numbers.

    Attributes:
        host: The host that gets the call. If the model is not loaded there, the call itself loads it.
        load: A host on which the model is to be loaded meanwhile, for later calls.
    """

    host: int
    load: int | None = None


def choose(
    hosts: Sequence[HostStatus],
    *,
    saved: Sequence[float] = (),
    may_load: bool = True,
    excluded: Collection[int] = (),
) -> HostChoice:
    """Choose the host of a call where the model is loaded: the one that is likely to begin the response first.

    That is a host with a free slot, or the one that has the beginning of the prompt in its cache, if the others would
    take longer for processing it than the call waits for a slot there. Among equals, it is the host with the least to
    do, and the one that responded last. A host that has not responded to its first call yet counts as if as many
    conversations went on there as anywhere.

    If no slot is free, the model is also loaded on another host that has it downloaded, unless others must go for it.
    If it is loaded nowhere, a host where nothing must go comes first. Hosts that are not available are chosen only if
    no other is left.

    Args:
        hosts: The hosts, at least one of them not excluded.
        saved: For each host, how many seconds of processing its cache saves for this prompt; by default none.
        may_load: Whether calls may load the model.
        excluded: Hosts that must not be chosen, by their numbers.
    """
    allowed = [number for number in range(len(hosts)) if number not in excluded]
    numbers = [number for number in allowed if hosts[number].available] or allowed
    usual, most = _usual_seconds(hosts), max(host.conversations for host in hosts)

    def cost(number: int) -> tuple[float, float, float]:
        host = hosts[number]
        # A host that never responds to what it accepts would have no conversations, and get every new one.
        load = max(host.load, most / host.parallel) if _is_unproven(host) else host.load
        return _wait(host, usual) - (saved[number] if saved else 0.0), load, -host.responded_at

    # Below, the first of equals is chosen.
    numbers.sort(key=cost)
    loaded = [number for number in numbers if hosts[number].loaded]
    loading = [number for number in numbers if hosts[number].loading and not hosts[number].loaded]
    has_room = any(hosts[number].has_free_slot for number in (*loaded, *loading))
    # Those that are not available may be tried, but nothing is loaded there meanwhile.
    loadable = [
        number
        for number in numbers
        if may_load and hosts[number].downloaded and number not in loaded and number not in loading
    ]
    loadable.sort(key=lambda number: hosts[number].lacks_room)
    if loaded:
        free = [number for number in loadable if hosts[number].available and not hosts[number].lacks_room]
        return HostChoice(loaded[0], free[0] if free and not has_room else None)
    if loadable and not has_room and not (loading and hosts[loadable[0]].lacks_room):
        return HostChoice(loadable[0])
    return HostChoice((loading or numbers)[0])


def _is_unproven(host: HostStatus) -> bool:
    return host.in_flight > 0 and host.responded_at == -math.inf


def _wait(host: HostStatus, usual: float) -> float:
    """Return about how many seconds another call would wait for a slot."""
    if host.has_free_slot:
        return 0.0
    return (host.in_flight - host.parallel + 1) * (host.call_seconds or usual) / host.parallel


def _usual_seconds(hosts: Sequence[HostStatus]) -> float:
    """Return how long a call takes on the hosts of which that is known, for the others."""
    known = [host.call_seconds for host in hosts if host.call_seconds]
    return sum(known) / len(known) if known else 1.0
