"""The policy for several hosts: which one gets the next call, and on which one a load is started meanwhile. Pure."""

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


def choose(hosts: Sequence[HostStatus], *, may_load: bool = True, excluded: Collection[int] = ()) -> HostChoice:
    """Choose the host of a call: a free slot where the model is loaded, else the least used of those hosts.

    If no slot is free, the model is also loaded on another host that has it downloaded. Hosts that are not available
    are chosen only if no other is left. Among equals, the one that responded last gets the call: a conversation stays
    where its prompt is cached, and a host that accepts calls but does not respond gets none.

    Args:
        hosts: The hosts, at least one of them not excluded.
        may_load: Whether calls may load the model.
        excluded: Hosts that must not be chosen, by their numbers.
    """
    allowed = [number for number in range(len(hosts)) if number not in excluded]
    allowed.sort(key=lambda number: -hosts[number].responded_at)  # below, the first of equals is chosen
    numbers = [number for number in allowed if hosts[number].available] or allowed
    loaded = [number for number in numbers if hosts[number].loaded]
    loading = [number for number in numbers if hosts[number].loading and not hosts[number].loaded]
    has_room = any(hosts[number].has_free_slot for number in (*loaded, *loading))
    # Those that are not available may be tried, but nothing is loaded there meanwhile.
    loadable = [
        number
        for number in numbers
        if may_load and hosts[number].downloaded and number not in loaded and number not in loading
    ]
    if loaded:
        load = loadable[0] if loadable and not has_room and hosts[loadable[0]].available else None
        return HostChoice(_least_used(hosts, loaded), load)
    if loadable and not has_room:
        return HostChoice(loadable[0])
    return HostChoice(_least_used(hosts, loading or numbers))


def _least_used(hosts: Sequence[HostStatus], numbers: Sequence[int]) -> int:
    return min(numbers, key=lambda number: (not hosts[number].has_free_slot, hosts[number].use))
