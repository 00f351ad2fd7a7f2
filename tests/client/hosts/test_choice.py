"""The policy for several hosts, for any state of the hosts."""

import math
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstudio_integrations.client.hosts.choice import choose
from lmstudio_integrations.client.hosts.prompt_index import PromptIndex
from lmstudio_integrations.protocol.prompt_fingerprint import PromptFingerprint
from lmstudio_integrations.types.hosts import HostStatus
from tests.client.hosts.test_prompt_index import result

STATUSES = st.builds(
    lambda available, state, in_flight, parallel: HostStatus(
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
    st.integers(1, 4),
)
HOSTS = st.lists(STATUSES, min_size=1, max_size=5)

LOADED = HostStatus(host="", loaded=True, downloaded=True, parallel=2)
RECENT = replace(LOADED, responded_at=1.0)
FULL = replace(LOADED, in_flight=2)
LOADING = replace(LOADED, loaded=False, loading=True)
DOWNLOADED = replace(LOADED, loaded=False)
ABSENT = replace(DOWNLOADED, downloaded=False)
CROWDED = replace(DOWNLOADED, lacks_room=True)
AWAY = replace(LOADED, available=False)


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ([LOADED, LOADED], (0, None)),
        ([LOADED, RECENT], (1, None)),
        ([RECENT, replace(RECENT, responded_at=2.0)], (1, None)),
        ([LOADED, replace(RECENT, in_flight=1)], (0, None)),
        ([FULL, DOWNLOADED, replace(RECENT, loaded=False)], (0, 2)),
        ([FULL, LOADED], (1, None)),
        ([replace(LOADED, in_flight=1), LOADED], (1, None)),
        ([FULL, DOWNLOADED, LOADED], (2, None)),
        ([FULL, DOWNLOADED], (0, 1)),
        ([FULL, ABSENT, DOWNLOADED], (0, 2)),
        ([FULL, LOADING, DOWNLOADED], (0, None)),
        ([FULL, replace(LOADING, in_flight=2), DOWNLOADED], (0, 2)),
        ([FULL, AWAY, replace(DOWNLOADED, available=False)], (0, None)),
        ([replace(FULL, in_flight=4), replace(FULL, in_flight=3)], (1, None)),
        ([replace(FULL, in_flight=8, parallel=4), replace(FULL, in_flight=6, parallel=2)], (0, None)),
        ([ABSENT, DOWNLOADED], (1, None)),
        ([LOADING, DOWNLOADED], (0, None)),
        ([replace(LOADING, in_flight=2), DOWNLOADED], (1, None)),
        ([replace(LOADING, in_flight=3), ABSENT], (0, None)),
        ([CROWDED, DOWNLOADED], (1, None)),
        ([CROWDED, ABSENT], (0, None)),
        ([FULL, CROWDED], (0, None)),
        ([FULL, CROWDED, DOWNLOADED], (0, 2)),
        ([replace(LOADING, in_flight=2), CROWDED], (0, None)),
        ([AWAY, ABSENT], (1, None)),
        ([AWAY, AWAY], (0, None)),
        ([replace(RECENT, conversations=1), replace(LOADED, conversations=2)], (0, None)),
        ([replace(RECENT, conversations=2), LOADED], (1, None)),
        ([replace(RECENT, in_flight=1, conversations=9), replace(LOADED, in_flight=1)], (0, None)),
        ([replace(RECENT, in_flight=1), replace(RECENT, conversations=2)], (0, None)),
        ([replace(LOADED, in_flight=1), replace(RECENT, conversations=2)], (1, None)),
        ([replace(LOADED, in_flight=1, parallel=4), replace(RECENT, in_flight=2, parallel=4)], (0, None)),
        ([replace(FULL, call_seconds=2.0), replace(FULL, call_seconds=1.0)], (1, None)),
    ],
)
def test_a_free_slot_comes_first_then_another_load_then_the_host_with_least_to_do_then_the_one_that_responded_last(
    hosts: list[HostStatus], expected: tuple[int, int | None]
) -> None:
    assert choose(hosts) == expected


BUSY = replace(FULL, call_seconds=1.0)  # a call waits half a second


@pytest.mark.parametrize(
    ("hosts", "saved", "chosen"),
    [
        ([RECENT, LOADED], [0.0, 0.1], 1),
        ([replace(RECENT, conversations=5, in_flight=1), LOADED], [0.1, 0.0], 0),
        ([BUSY, LOADED], [0.6, 0.0], 0),
        ([BUSY, LOADED], [0.4, 0.0], 1),
        ([BUSY, BUSY], [0.4, 0.0], 0),
        ([replace(BUSY, in_flight=3), BUSY], [0.4, 0.0], 1),
        ([replace(FULL, call_seconds=9.0), LOADED], [4.0, 0.0], 1),
        ([replace(FULL, in_flight=50), replace(BUSY, in_flight=3)], [0.0, 0.0], 1),
        ([AWAY, LOADED], [100.0, 0.0], 1),
        ([DOWNLOADED, LOADED], [100.0, 0.0], 1),
    ],
)
def test_a_conversation_waits_for_its_host_if_that_is_faster_than_processing_it_elsewhere(
    hosts: list[HostStatus], saved: list[float], chosen: int
) -> None:
    assert choose(hosts, saved=saved).host == chosen


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("responded", [4, 1, 0])
def test_conversations_that_start_together_are_spread_evenly_and_stay_where_they_are(
    responded: int, number: int, seed: int
) -> None:
    chance = Random(seed)
    known = [PromptIndex() for _ in range(number)]
    at = [1.0 if host < responded else -math.inf for host in range(number)]
    homes: dict[int, int] = {}
    running: list[int] = []
    turns: Counter[int] = Counter()

    def start(agent: int, prompt: PromptFingerprint) -> None:
        in_flight = Counter(homes[agent] for agent in running)
        hosts = [
            replace(
                LOADED,
                parallel=4,
                in_flight=in_flight[host],
                responded_at=at[host],
                conversations=known[host].active(),
                call_seconds=0.1,
            )
            for host in range(number)
        ]
        host = choose(hosts, saved=[each.seconds_saved(prompt) for each in known]).host
        assert homes.setdefault(agent, host) == host
        known[host].record_request(prompt)
        running.append(agent)
        turns[host] += 1

    for turn in range(10):
        prompts = [PromptFingerprint((0, 0, *range(100 * agent, 100 * agent + 2 * turn + 1)), 2) for agent in range(8)]
        agents = list(range(8))
        chance.shuffle(agents)
        while agents or running:
            if agents and (turn == 0 or not running or chance.random() < 0.7):
                agent = agents.pop()
                start(agent, prompts[agent])
            else:
                agent = running.pop(chance.randrange(len(running)))
                known[homes[agent]].record_response(prompts[agent], result(100 * (turn + 1), 100 * turn))
                at[homes[agent]] = 1.0
    assert max(turns.values()) <= 1.3 * turns.total() / number


@given(HOSTS, st.booleans(), st.data())
def test_every_choice_is_allowed(hosts: list[HostStatus], may_load: bool, data: st.DataObject) -> None:
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
def test_a_free_slot_is_never_wasted(hosts: list[HostStatus], may_load: bool) -> None:
    number, load = choose(hosts, may_load=may_load)
    if any(each.available and each.loaded and each.has_free_slot for each in hosts):
        assert hosts[number].loaded
        assert hosts[number].has_free_slot
        assert load is None


@given(HOSTS)
def test_a_call_never_waits_for_a_load_while_the_model_is_loaded_elsewhere(hosts: list[HostStatus]) -> None:
    if any(each.available and each.loaded for each in hosts):
        assert hosts[choose(hosts).host].loaded


@given(HOSTS)
def test_a_load_starts_only_when_every_slot_is_taken(hosts: list[HostStatus]) -> None:
    number, load = choose(hosts)
    starts = load is not None or (hosts[number].downloaded and not hosts[number].loaded and not hosts[number].loading)
    usable = [each for each in hosts if each.available] or hosts
    if starts:
        assert not any((each.loaded or each.loading) and each.has_free_slot for each in usable)
