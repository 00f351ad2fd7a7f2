"""The stats of a prediction."""

import pytest

from lmstudio_integrations.emulator.engines.base import Finished
from lmstudio_integrations.emulator.models.clock import ManualClock
from lmstudio_integrations.emulator.server.prediction_stats import StatsCollector
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PromptProgress,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)


def test_stats_are_computed_from_the_clock() -> None:
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
    fragment = LlmPredictionFragment("x")
    assert rate(LlmPredictionFragment("held back", 50), fragment, fragment, predicted=52) == pytest.approx(2 / 3)
    assert rate(fragment, predicted=1) == 1.0
    assert rate(LlmPredictionFragment("held back", 3), predicted=4) == 4.0
    assert rate(predicted=1) is None
    assert rate(fragment, predicted=2) == 2.0


def test_an_incomplete_tool_call_fails_with_its_text() -> None:
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
def test_a_complete_tool_call_ends_once(last: ToolCallEnd | ToolCallFailed) -> None:
    meter = StatsCollector(ManualClock())
    for event in (ToolCallStart("7"), last):
        list(meter.add(event))
    assert list(meter.remaining(Finished("eosFound", 1, 1))) == []


def test_progress_that_an_engine_omits_is_sent() -> None:
    meter = StatsCollector(ManualClock())
    sent = [*meter.add(PromptProgress(0.5)), *meter.add(LlmPredictionFragment("x"))]
    assert [event.progress for event in sent if isinstance(event, PromptProgress)] == [0, 0.5, 1]


def test_progress_without_token_counts_is_sent_before_the_first_token() -> None:
    sent = list(StatsCollector(ManualClock()).add(LlmPredictionFragment("x")))
    assert [event.progress for event in sent if isinstance(event, PromptProgress)] == [0, 1]
