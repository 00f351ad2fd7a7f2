"""Stopping work from outside, taking turns, time that a test moves, figures of a prediction."""

import asyncio
from typing import Any

import pytest

from lmstudio_integrations.emulator.clock import ManualClock, SystemClock
from lmstudio_integrations.emulator.engines.base import Finished
from lmstudio_integrations.emulator.prediction_stats import StatsCollector
from lmstudio_integrations.emulator.retrieval import RetrievalConfig, chunk, cosine
from lmstudio_integrations.emulator.scheduling import CancelScope, FairQueue
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PromptProgress,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_scope_is_stopped_without_an_error_and_keeps_the_first_reason() -> None:
    scope = CancelScope()

    async def work() -> str:
        with scope:
            await forever()
        await asyncio.sleep(0)
        return "went on"

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    scope.cancel("one")
    scope.cancel("two")
    assert await task == "went on"
    assert scope.reason == "one"


async def test_a_scope_that_was_stopped_before_it_began_does_not_begin() -> None:
    scope = CancelScope()
    scope.cancel("early")
    with scope:
        await forever()
    await asyncio.sleep(0)


async def test_cancelling_the_task_goes_through_a_scope() -> None:
    scope = CancelScope()

    async def work() -> None:
        with scope:
            await forever()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    scope.cancel("stopped")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_errors_go_through_a_stopped_scope() -> None:
    scope = CancelScope()

    async def work() -> None:
        with scope:
            try:
                await forever()
            except asyncio.CancelledError:
                raise ValueError("while cleaning up") from None

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    scope.cancel("stopped")
    with pytest.raises(ValueError, match="cleaning up"):
        await task


async def test_places_are_given_to_clients_in_turn() -> None:
    queue, order = FairQueue(1), list[str]()

    async def work(client: str) -> None:
        await queue.acquire(client)
        order.append(client)
        queue.release()

    await queue.acquire("first")
    tasks = [asyncio.create_task(work(client)) for client in ("a", "a", "a", "b", "c")]
    await asyncio.sleep(0)
    assert (queue.running, queue.queued) == (1, 5)
    queue.release()
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c", "a", "a"]
    assert (queue.running, queue.queued) == (0, 0)


async def test_nobody_overtakes_those_who_wait() -> None:
    queue = FairQueue(1)
    await queue.acquire("a")
    waiting = asyncio.create_task(queue.acquire("b"))
    await asyncio.sleep(0)
    queue.release()
    late = asyncio.create_task(queue.acquire("a"))
    await waiting
    await asyncio.sleep(0)
    assert not late.done()
    queue.release()
    await late


async def test_who_leaves_the_queue_takes_no_place() -> None:
    queue = FairQueue(1)
    await queue.acquire("a")
    waiting = [asyncio.create_task(queue.acquire("b")) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    queue.release()
    await waiting[1]
    assert (queue.running, queue.queued) == (1, 0)


async def test_a_place_that_comes_as_its_taker_leaves_goes_to_the_next() -> None:
    queue = FairQueue(1)
    await queue.acquire("a")
    first, second = (asyncio.create_task(queue.acquire("b")) for _ in range(2))
    await asyncio.sleep(0)
    queue.release()
    first.cancel()
    await second
    assert first.cancelled()
    assert (queue.running, queue.queued) == (1, 0)


async def test_a_clock_that_is_moved_calls_what_is_due_in_order() -> None:
    clock, called = ManualClock(unix_ms=1000), list[str]()
    clock.call_later(2, lambda: called.append("two"))
    clock.call_later(1, lambda: called.append("one"))
    clock.call_later(1.5, lambda: called.append("cancelled")).cancel()
    clock.call_later(3, lambda: called.append("three"))
    clock.advance(2)
    await asyncio.sleep(0)
    assert called == ["one", "two"]
    assert (clock.now(), clock.unix_ms()) == (2, 3000)


async def test_the_real_clock_runs() -> None:
    clock, rung = SystemClock(), asyncio.Event()
    before = clock.now()
    clock.call_later(0, rung.set)
    await asyncio.wait_for(rung.wait(), 5)
    assert clock.now() >= before
    assert clock.unix_ms() > 1_700_000_000_000


def test_figures_follow_from_the_clock() -> None:
    clock = ManualClock()
    meter = StatsCollector(clock)
    clock.advance(1)
    meter.start()
    list(meter.add(PromptProgress(0.5, {"totalPromptTokenCount": 8})))
    clock.advance(2)
    for _ in range(4):
        list(meter.add(LlmPredictionFragment("x")))
        clock.advance(0.5)
    stats = meter.stats(Finished("eosFound", 8, 5, stats={"usedDraftModelKey": "small"}))
    assert stats == {
        "stopReason": "eosFound",
        "tokensPerSecond": 2.0,
        "numGpuLayers": -1,
        "timeToFirstTokenSec": 2.0,
        "totalTimeSec": 4.0,
        "promptTokensCount": 8,
        "predictedTokensCount": 5,
        "totalTokensCount": 13,
        "usedDraftModelKey": "small",
    }
    assert meter.stopped("userStopped") == Finished("userStopped", 8, 4)


def rate(*fragments: LlmPredictionFragment, predicted: int) -> object:
    """Return the speed of a prediction whose fragments come a second apart."""
    clock = ManualClock()
    meter = StatsCollector(clock)
    for fragment in fragments:
        list(meter.add(fragment))
        clock.advance(1)
    return meter.stats(Finished("eosFound", 1, predicted)).get("tokensPerSecond")


def test_a_speed_counts_the_tokens_after_the_first_fragment_and_in_a_short_response_all() -> None:
    piece = LlmPredictionFragment("x")
    assert rate(LlmPredictionFragment("held back", 50), piece, piece, predicted=52) == pytest.approx(2 / 3)
    assert rate(piece, predicted=1) == 1.0
    assert rate(LlmPredictionFragment("held back", 3), predicted=4) == 4.0
    assert rate(predicted=1) is None
    assert rate(piece, predicted=2) == 2.0


def test_a_call_that_is_broken_off_fails_with_what_there_is_of_it() -> None:
    meter = StatsCollector(ManualClock())
    for event in (ToolCallStart("7"), ToolCallName("add"), ToolCallArguments('{"a"'), ToolCallArguments(": 1")):
        list(meter.add(event))
    finished = meter.stopped("userStopped")
    assert finished.predicted_tokens == 2
    (failed,) = meter.remaining(finished)
    assert isinstance(failed, ToolCallFailed)
    assert failed.raw_content == '{"a": 1'
    assert list(meter.remaining(finished)) == []


@pytest.mark.parametrize("last", [ToolCallEnd("7", "add"), ToolCallFailed({})])
def test_a_call_that_has_ended_ends_once(last: ToolCallEnd | ToolCallFailed) -> None:
    meter = StatsCollector(ManualClock())
    for event in (ToolCallStart("7"), last):
        list(meter.add(event))
    assert list(meter.remaining(Finished("eosFound", 1, 1))) == []


def test_progress_that_an_engine_leaves_out_is_sent_all_the_same() -> None:
    meter = StatsCollector(ManualClock())
    sent = [*meter.add(PromptProgress(0.5)), *meter.add(LlmPredictionFragment("x"))]
    assert [event.progress for event in sent if isinstance(event, PromptProgress)] == [0, 0.5, 1]


def test_progress_without_figures_is_sent_before_the_first_token() -> None:
    sent = list(StatsCollector(ManualClock()).add(LlmPredictionFragment("x")))
    assert [event.progress for event in sent if isinstance(event, PromptProgress)] == [0, 1]


TEXT = "\nOne one\n\nTwo two\nThree three three\n\n"


def test_texts_are_cut_at_paragraphs_lines_and_words_with_their_lines() -> None:
    chunks = chunk(TEXT, 7, RetrievalConfig(chunk_size=12, overlap=0))
    assert [(each.content, each.lines) for each in chunks] == [
        ("One one", (2, 2)),
        ("Two two", (4, 4)),
        ("Three three", (5, 5)),
        ("three", (5, 5)),
    ]
    assert {each.source for each in chunks} == {7}


def test_pieces_overlap_and_a_word_that_is_too_long_is_cut() -> None:
    assert [each.content for each in chunk("abcdefgh", 0, RetrievalConfig(chunk_size=4, overlap=2))] == [
        "abcd",
        "cdef",
        "efgh",
    ]
    assert chunk("  \n ", 0, RetrievalConfig()) == []


def test_a_large_overlap_does_not_make_a_piece_of_every_character() -> None:
    chunks = chunk("x" * 1000, 0, RetrievalConfig(chunk_size=100, overlap=99))
    assert "".join(each.content[:25] for each in chunks[:-1]) + chunks[-1].content == "x" * 1000
    assert len(chunks) == 37


def test_cutting_ends_soon_after_the_limit() -> None:
    assert len(chunk("x" * 1000, 0, RetrievalConfig(chunk_size=1, overlap=0), 10)) == 11


def test_no_line_of_a_text_is_counted_twice() -> None:
    class Text(str):
        __slots__ = ()
        seen = 0

        def count(self, x: str, start: Any = 0, end: Any = None, /) -> int:
            Text.seen += end - start
            return super().count(x, start, end)

    text = Text("a line\n" * 500)
    assert chunk(text, 0, RetrievalConfig())[-1].lines[1] == 500
    assert Text.seen <= len(text)


@pytest.mark.parametrize(
    ("fields", "config"),
    [
        ({}, RetrievalConfig()),
        ({"retrieval.limit": float("inf")}, RetrievalConfig()),
        ({"retrieval.limit": 3.0, "retrieval.embeddingModel": "v"}, RetrievalConfig(limit=3, model="v")),
        ({"retrieval.chunkingMethod": {"chunkSize": 10}}, RetrievalConfig(chunk_size=10, overlap=9)),
        ({"retrieval.chunkingMethod": {"chunkSize": 0, "chunkOverlap": -1}, "retrieval.limit": "x"}, RetrievalConfig()),
    ],
)
def test_settings_of_a_search_that_cannot_be_have_their_defaults(
    fields: dict[str, object], config: RetrievalConfig
) -> None:
    assert RetrievalConfig.read(fields) == config


def test_nothing_is_near_a_vector_of_zeros() -> None:
    assert cosine([0, 0], [1, 0]) == 0
    assert cosine([0, 2], [0, 1]) == 1
