"""The policy for several hosts, for any state of the hosts."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lmstudio_integrations as lms
from lmstudio_integrations.client.hosts.hosts import choose

STATUSES = st.builds(
    lambda available, state, in_flight, parallel: lms.HostStatus(
        host="",
        available=available,
        loaded=state == "loaded",
        loading=state == "loading",
        downloaded=state != "absent",
        in_flight=in_flight,
        parallel=parallel,
    ),
    st.booleans(),
    st.sampled_from(["loaded", "loading", "downloaded", "absent"]),
    st.integers(0, 6),
    st.one_of(st.none(), st.integers(1, 4)),
)
HOSTS = st.lists(STATUSES, min_size=1, max_size=5)

LOADED = lms.HostStatus(host="", loaded=True, downloaded=True, parallel=2)
FAILED = replace(LOADED, has_failed=True)
FULL = replace(LOADED, in_flight=2)
LOADING = replace(LOADED, loaded=False, loading=True)
DOWNLOADED = replace(LOADED, loaded=False)
ABSENT = replace(DOWNLOADED, downloaded=False)
CROWDED = replace(DOWNLOADED, lacks_room=True)
AWAY = replace(LOADED, available=False)


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ([FAILED, replace(LOADED, in_flight=1)], (1, None)),
        ([FAILED, FULL], (0, None)),
        ([FULL, replace(DOWNLOADED, has_failed=True), DOWNLOADED], (0, 2)),
        ([replace(LOADED, in_flight=1), LOADED], (1, None)),
        ([FULL, DOWNLOADED], (0, 1)),
        ([FULL, ABSENT, DOWNLOADED], (0, 2)),
        ([FULL, LOADING, DOWNLOADED], (0, None)),
        ([FULL, replace(LOADING, in_flight=2), DOWNLOADED], (0, 2)),
        ([FULL, AWAY, replace(DOWNLOADED, available=False)], (0, None)),
        ([replace(FULL, in_flight=8, parallel=4), replace(FULL, in_flight=6, parallel=2)], (0, None)),
        ([LOADING, DOWNLOADED], (0, None)),
        ([replace(LOADING, in_flight=2), DOWNLOADED], (1, None)),
        ([replace(LOADING, in_flight=3), ABSENT], (0, None)),
        ([CROWDED, DOWNLOADED], (1, None)),
        ([CROWDED, ABSENT], (0, None)),
        ([FULL, CROWDED, DOWNLOADED], (0, 2)),
        ([replace(LOADING, in_flight=2), CROWDED], (0, None)),
        ([AWAY, ABSENT], (1, None)),
        ([replace(LOADED, in_flight=1, parallel=4), replace(LOADED, in_flight=2, parallel=4)], (0, None)),
        ([replace(LOADED, in_flight=1), replace(LOADED, in_flight=1, parallel=4)], (1, None)),
        ([replace(LOADED, in_flight=1), replace(LOADED, in_flight=1, parallel=None)], (1, None)),
        ([replace(LOADED, in_flight=1), replace(LOADED, in_flight=3, parallel=None)], (0, None)),
        ([FULL, replace(LOADED, in_flight=99, parallel=None), DOWNLOADED], (1, None)),
    ],
)
def test_a_free_slot_comes_first_then_the_shortest_queue_then_the_order_of_the_hosts(
    hosts: list[lms.HostStatus], expected: tuple[int, int | None]
) -> None:
    assert choose(hosts) == expected


@pytest.mark.parametrize(
    ("hosts", "cached", "chosen"),
    [
        ([LOADED, LOADED], [1, 2], 1),
        ([replace(LOADED, in_flight=1), LOADED], [1, 0], 0),
        ([FULL, replace(FULL, in_flight=3)], [0, 1], 1),
        ([FAILED, LOADED], [1, 0], 1),
        ([AWAY, LOADED], [1, 0], 1),
        ([DOWNLOADED, LOADED], [1, 0], 1),
    ],
)
def test_among_equals_the_host_that_has_the_conversation_in_its_cache_gets_it(
    hosts: list[lms.HostStatus], cached: list[int], chosen: int
) -> None:
    assert choose(hosts, cached=cached)[0] == chosen


@given(HOSTS, st.booleans(), st.data())
def test_every_choice_is_allowed(hosts: list[lms.HostStatus], may_load: bool, data: st.DataObject) -> None:
    excluded = data.draw(st.sets(st.integers(0, len(hosts) - 1), max_size=len(hosts) - 1))
    number, load = choose(hosts, may_load=may_load, excluded=excluded)
    assert number not in excluded
    allowed = [each for other, each in enumerate(hosts) if other not in excluded]
    if any(each.available for each in allowed):
        assert hosts[number].available
    if load is not None:
        assert may_load
        assert load not in excluded
        assert load != number
        assert hosts[load].downloaded
        assert hosts[load].available
        assert not hosts[load].loaded
        assert not hosts[load].loading


@given(HOSTS, st.booleans())
def test_a_free_slot_is_never_wasted(hosts: list[lms.HostStatus], may_load: bool) -> None:
    number, load = choose(hosts, may_load=may_load)
    if any(each.available and each.loaded and each.has_free_slot for each in hosts):
        assert hosts[number].loaded
        assert hosts[number].has_free_slot
        assert load is None


@given(HOSTS)
def test_a_call_never_waits_for_a_load_while_the_model_is_loaded_elsewhere(hosts: list[lms.HostStatus]) -> None:
    if any(each.available and each.loaded for each in hosts):
        assert hosts[choose(hosts)[0]].loaded


@given(HOSTS)
def test_a_load_starts_only_when_every_slot_is_taken(hosts: list[lms.HostStatus]) -> None:
    number, load = choose(hosts)
    starts = load is not None or (hosts[number].downloaded and not hosts[number].loaded and not hosts[number].loading)
    usable = [each for each in hosts if each.available] or hosts
    if starts:
        assert not any((each.loaded or each.loading) and each.has_free_slot for each in usable)
