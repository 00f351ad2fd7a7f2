"""What all engines read alike from the settings of a prediction."""

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.generation import (
    Tags,
    reasoning_tags,
    stop_strings,
)


def test_settings_choose_how_reasoning_is_separated() -> None:
    other = {"enabled": True, "startString": "[[", "endString": "]]"}
    assert reasoning_tags(lms.LlmPredictionConfig(reasoning_parsing=other)) == Tags("[[", "]]")
    assert reasoning_tags(lms.LlmPredictionConfig()) == Tags("<think>", "</think>")
    assert not reasoning_tags(lms.LlmPredictionConfig(reasoning_parsing={"enabled": False})).enabled
    assert not reasoning_tags(lms.LlmPredictionConfig(reasoning_parsing={"enabled": True, "startString": ""})).enabled


def test_all_stop_strings_count() -> None:
    config = lms.LlmPredictionConfig(
        stop_strings=["a"], tool_call_stop_strings=["b"], prompt_template={"type": "manual", "stopStrings": ["c"]}
    )
    assert stop_strings(config) == ["a", "b", "c"]
    malformed = lms.LlmPredictionConfig(prompt_template={"type": "manual", "stopStrings": ["", 7]})
    assert stop_strings(malformed) == ["7"]
    assert stop_strings(lms.LlmPredictionConfig(prompt_template={"type": "manual", "stopStrings": 7})) == []
