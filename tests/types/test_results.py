"""Finished predictions and the fragments that they arrive in."""

import json
from typing import Any

import pytest

import lmstudio_integrations as lms
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
END = lms.PredictionEnd(
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


@pytest.mark.parametrize(
    ("reason", "is_interrupted"),
    [(reason, True) for reason in ("userStopped", "repetition", "failed", "modelUnloaded")]
    + [(reason, False) for reason in ("eosFound", "toolCalls", "maxPredictedTokensReached", None)],
)
def test_a_prediction_that_did_not_come_to_an_end_of_its_own_is_interrupted(
    reason: str | None, is_interrupted: bool
) -> None:
    assert lms.PredictionEnd({"stopReason": reason}, {}, {}, {}).is_interrupted is is_interrupted


def test_a_fragment_has_a_wire_form() -> None:
    fragment = lms.LlmPredictionFragment("Hi", 2, True, "reasoning", True, [{"text": "Hi", "id": 1, "logProb": -0.1}])
    assert fragment.to_dict() == json.loads(fragment.to_json()) == WIRE
    assert lms.LlmPredictionFragment.from_dict({**WIRE, "ofTheFuture": 1}) == fragment
    assert lms.LlmPredictionFragment.from_dict({"content": "a", "tokens_count": 3}) == lms.LlmPredictionFragment("a", 3)
    assert "tokens" not in lms.LlmPredictionFragment("a").to_dict()
    with pytest.raises(ValueError, match="content"):
        lms.LlmPredictionFragment.from_dict({"tokensCount": 1})


def test_a_result_knows_its_stats_its_model_and_its_settings() -> None:
    result = lms.PredictionResult("Hello", "Hm.", END)
    assert str(result) == "Hello"
    assert result.stats.to_dict() == STATS
    assert result.stats.stop_reason == "eosFound"
    assert result.model_info.to_dict() == INSTANCE
    assert result.load_config.context_length == 4096
    assert result.prediction_config.temperature == pytest.approx(0.8)
    assert result.prediction_config.max_tokens is None, "a limit that is off is not set"


@pytest.mark.parametrize(
    "config",
    [{}, {"fields": None}, {"fields": {"key": "a"}}, {"fields": [None, 5, {}, {"key": 5}, {"key": []}]}],
)
def test_settings_without_sense_are_none(config: dict[str, Any]) -> None:
    result = lms.PredictionResult("", "", lms.PredictionEnd(STATS, INSTANCE, config, config))
    assert result.load_config.to_fields() == {}
    assert result.prediction_config.to_fields() == {}


def test_statistics_without_a_stop_reason_have_an_unknown_one() -> None:
    assert lms.PredictionResult("", "", lms.PredictionEnd({}, {}, {}, {})).stats.stop_reason == "unknown"


@pytest.mark.parametrize("data", [{"stopReason": 5}, {"stopReason": "eosFound", "totalTimeSec": "long"}])
def test_invalid_stats_raise_a_descriptive_error(data: dict[str, Any]) -> None:
    result = lms.PredictionResult("", "", lms.PredictionEnd(data, {}, {}, {}))
    with pytest.raises(lms.LMStudioProtocolError, match="malformed LlmPredictionStats"):
        _ = result.stats
    with pytest.raises(lms.LMStudioProtocolError, match="malformed LlmInstanceInfo"):
        _ = result.model_info


@pytest.mark.parametrize(("arguments", "sent"), [({"a": 1}, {"a": 1}), (None, {})])
def test_a_tool_call_goes_into_the_next_conversation(arguments: dict[str, Any] | None, sent: dict[str, Any]) -> None:
    request = lms.ToolCallEnd("abc", "add", arguments).to_request()
    assert request.to_dict() == {"type": "function", "id": "abc", "name": "add", "arguments": sent}
