"""What all engines read alike from the settings of a prediction."""

import pytest

from lmstudio_integrations.emulator.engines.generation import (
    DEFAULT_TAGS,
    Tags,
    end_of_prompt,
    known_tags,
    overlap,
    reasoning_tags,
    stop_strings,
)
from lmstudio_integrations.types.config import LlmPredictionConfig


def test_settings_choose_how_reasoning_is_separated() -> None:
    other = {"enabled": True, "startString": "[[", "endString": "]]"}
    assert reasoning_tags(LlmPredictionConfig(reasoning_parsing=other)) == Tags("[[", "]]")
    assert reasoning_tags(LlmPredictionConfig()) == Tags("<think>", "</think>")
    assert not reasoning_tags(LlmPredictionConfig(reasoning_parsing={"enabled": False})).enabled
    assert not reasoning_tags(LlmPredictionConfig(reasoning_parsing={"enabled": True, "startString": ""})).enabled


def test_the_tags_of_reasoning_are_those_that_the_template_has() -> None:
    assert known_tags("{% if '</think>' in text %}<think>{% endif %}") == DEFAULT_TAGS
    assert known_tags("<|channel>thought\n{{ text }}<channel|>") == Tags("<|channel>thought", "<channel|>")
    assert known_tags("{{ '<mm:think>' ~ thought ~ '</mm:think>' }}") == Tags("<mm:think>", "</mm:think>")
    assert known_tags("{{ text.split('</think>') }}") is None


@pytest.mark.parametrize(
    ("prompt", "end"),
    [
        ("<|assistant|><think>\n", "<think>\n"),
        ("<think>\n\n</think>\n\n", "<think>\n\n</think>\n\n"),
        ("<|user|><think>\n<|assistant|>", ""),
        ("<think>so</think>", ""),
    ],
)
def test_only_tags_at_the_very_end_of_a_prompt_open_a_response(prompt: str, end: str) -> None:
    assert end_of_prompt(prompt, DEFAULT_TAGS) == end


def test_all_stop_strings_count() -> None:
    config = LlmPredictionConfig(
        stop_strings=["a"], tool_call_stop_strings=["b"], prompt_template={"type": "manual", "stopStrings": ["c"]}
    )
    assert stop_strings(config) == ["a", "b", "c"]
    malformed = LlmPredictionConfig(prompt_template={"type": "manual", "stopStrings": ["", 7]})
    assert stop_strings(malformed) == ["7"]
    assert stop_strings(LlmPredictionConfig(prompt_template={"type": "manual", "stopStrings": 7})) == []


def test_the_longest_possible_start_of_a_string_overlaps() -> None:
    assert overlap("one <th", ["<think>", "<t", "h!"]) == 3
    assert overlap("one", ["<think>"]) == overlap("one", []) == overlap("", ["a"]) == 0
