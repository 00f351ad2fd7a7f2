"""What is remembered of a host, without a host."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.hosts.host import ABSENCE, REFRESH, HostRecord, conversation_of
from lmstudio_integrations.protocol.prompt_fingerprint import PromptFingerprint
from tests.support.virtual_time import in_virtual_time

ERROR = lms.LMStudioTimeoutError("It does not respond")
NOTHING = lms.HostStatus(host="a")
LOADED = replace(NOTHING, loaded=True, downloaded=True, parallel=2)


@in_virtual_time
async def test_a_host_that_failed_is_asked_again_later_and_is_unproven_until_a_call_gets_a_response() -> None:
    record = HostRecord(NOTHING)
    assert record.is_due
    record.record_failure(ERROR)
    assert (record.found.available, record.has_failed, record.is_due) == (False, True, False)
    await asyncio.sleep(ABSENCE)
    assert record.is_due
    record.record_probe(LOADED)
    assert (record.found.available, record.has_failed, record.is_due) == (True, True, False)
    await asyncio.sleep(REFRESH)
    assert record.is_due
    record.record_success()
    assert not record.has_failed


def test_the_cache_of_a_host_that_fails_or_loads_again_is_forgotten() -> None:
    record, conversation = HostRecord(NOTHING), [1]
    changes: list[tuple[Callable[[], None], bool]] = [
        (lambda: record.record_probe(LOADED, "a"), True),
        (lambda: record.record_probe(LOADED, "a"), True),
        (lambda: record.record_probe(LOADED, "b"), False),
        (lambda: record.record_probe(NOTHING), False),
        (lambda: record.record_failure(ERROR), False),
        (lambda: record.record_failure(ERROR, responds=True), False),
    ]
    for change, remains in changes:
        record.record_success(conversation)
        change()
        assert bool(record.cached_parts(conversation)) is remains


def conversation(parts: str) -> list[int]:
    """What stands for tools, a system message and turns, each a letter."""
    return conversation_of(PromptFingerprint(tuple(map(ord, parts)), 2))


@pytest.mark.parametrize(
    ("parts", "cached"),
    [("TSab", 2), ("TSabxy", 2), ("TSabcdef", 4), ("TSx", 0), ("TSa", 0), ("tSab", 0), ("TS", 0)],
    ids=["again", "one that goes on", "the latest turn", "another one", "shorter", "other tools", "no turn yet"],
)
def test_a_host_has_in_its_cache_the_conversations_to_which_it_has_responded(parts: str, cached: int) -> None:
    record = HostRecord(NOTHING)
    for responded in ("TSab", "TSabce", "TSabcd", "TS"):
        record.record_success(conversation(responded))
    assert record.cached_parts(conversation(parts)) == cached


def test_who_sees_that_a_host_has_the_model_sees_how_many_calls_it_runs() -> None:
    seen: list[tuple[bool, int | None]] = []

    class Watched(HostRecord):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if hasattr(self, "found"):
                seen.append((self.found.loaded, self.found.parallel))

    record = Watched(NOTHING)
    record.record_probe(LOADED)
    record.record_probe(NOTHING)
    assert (True, LOADED.parallel) in seen
    assert (True, NOTHING.parallel) not in seen


def test_a_call_releases_all_that_it_has_taken_and_nothing_else() -> None:
    record, call, other = HostRecord(NOTHING), object(), object()
    assert [record.reserve(each, 2) for each in (call, other, object())] == [True, True, False]
    record.loads[call] = call
    for _ in range(2):  # an exception may have been raised into the thread that began with it
        record.release(call)
        assert (record.calls, record.loads) == ({1: other}, {})
    assert record.reserve(call, None)
    record.release(call)
    assert record.calls == {1: other}
