"""Finished predictions and the fragments that they arrive in."""

import json
from typing import Any

import pytest

from lmstudio_integrations.errors import LMStudioProtocolError
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    LlmPredictionStats,
    PredictionEnd,
    PredictionResult,
    PredictionRoundResult,
    ToolCallEnd,
)
from tests.types.test_models import INSTANCE

STATS = {
    "stopReason": "eosFound",
    "tokensPerSecond": 51.4,
    "numGpuLayers": -1,
    "timeToFirstTokenSec": 0.11,
    "totalTimeSec": 0.95,
    "promptTokensCount": 41,
    "predictedTokensCount": 5,
    "totalTokensCount": 46,
}
END = PredictionEnd(
    STATS,
    INSTANCE,
    {"fields": [{"key": "llm.load.contextLength", "value": 4096}]},
    {
        "fields": [
            {"key": "llm.prediction.temperature", "value": 0.8},
            {"key": "llm.prediction.maxPredictedTokens", "value": {"checked": False, "value": 1000}},
        ]
    },
)


WIRE = {
    "content": "Hi",
    "tokensCount": 2,
    "containsDrafted": True,
    "reasoningType": "reasoning",
    "isStructural": True,
    "tokens": [{"text": "Hi", "id": 1, "logProb": -0.1}],
}


def test_a_fragment_has_a_wire_form() -> None:
    fragment = LlmPredictionFragment("Hi", 2, True, "reasoning", True, [{"text": "Hi", "id": 1, "logProb": -0.1}])
    assert fragment.to_dict() == json.loads(fragment.to_json()) == WIRE
    assert LlmPredictionFragment.from_dict({**WIRE, "ofTheFuture": 1}) == fragment
    assert LlmPredictionFragment.from_dict({"content": "a", "tokens_count": 3}) == LlmPredictionFragment("a", 3)
    assert "tokens" not in LlmPredictionFragment("a").to_dict()
    with pytest.raises(ValueError, match="content"):
        LlmPredictionFragment.from_dict({"tokensCount": 1})


def test_a_result_knows_its_stats_its_model_and_its_settings() -> None:
    result = PredictionResult("Hello", "Hm.", END)
    assert str(result) == "Hello"
    assert result.stats.to_dict() == STATS
    assert result.stats.stop_reason == "eosFound"
    assert result.model_info.to_dict() == INSTANCE
    assert result.load_config.context_length == 4096
    assert result.prediction_config.temperature == pytest.approx(0.8)
    assert result.prediction_config.max_tokens is None, "a limit that is off is not set"


def test_what_is_read_out_of_a_result_is_read_once() -> None:
    result = PredictionResult("", "", END)
    assert result.stats is result.stats
    assert result.prediction_config is result.prediction_config


def test_a_result_of_the_tool_loop_knows_its_round() -> None:
    result = PredictionRoundResult.of(PredictionResult("Hello", "Hm.", END, structured=True), 2)
    assert (result.content, result.reasoning_content, result.structured, result.round_index) == (
        "Hello",
        "Hm.",
        True,
        2,
    )
    assert result.stats.to_dict() == STATS


@pytest.mark.parametrize(
    "config",
    [{}, {"fields": None}, {"fields": {"key": "a"}}, {"fields": [None, 5, {}, {"key": 5}, {"key": []}]}],
)
def test_settings_without_sense_are_none(config: dict[str, Any]) -> None:
    result = PredictionResult("", "", PredictionEnd(STATS, INSTANCE, config, config))
    assert result.load_config.to_fields() == {}
    assert result.prediction_config.to_fields() == {}


@pytest.mark.parametrize("data", [{}, {"stopReason": 5}, {"stopReason": "eosFound", "totalTimeSec": "long"}])
def test_invalid_stats_raise_a_descriptive_error(data: dict[str, Any]) -> None:
    result = PredictionResult("", "", PredictionEnd(data, {}, {}, {}))
    with pytest.raises(LMStudioProtocolError, match="malformed LlmPredictionStats"):
        _ = result.stats
    with pytest.raises(LMStudioProtocolError, match="malformed LlmInstanceInfo"):
        _ = result.model_info


def test_reasons_to_stop_of_tomorrow_are_read() -> None:
    assert LlmPredictionStats.from_dict({"stopReason": "fromTheFuture"}).stop_reason == "fromTheFuture"


def test_a_tool_call_without_an_id_goes_without_one() -> None:
    assert ToolCallEnd(None, "add").to_request().to_dict() == {"type": "function", "name": "add", "arguments": {}}


@pytest.mark.parametrize(("arguments", "sent"), [({"a": 1}, {"a": 1}), (None, {})])
def test_a_tool_call_goes_into_the_next_conversation(arguments: dict[str, Any] | None, sent: dict[str, Any]) -> None:
    request = ToolCallEnd("abc", "add", arguments).to_request()
    assert request.to_dict() == {"type": "function", "id": "abc", "name": "add", "arguments": sent}
