"""Prediction settings in llama.cpp's form."""

from typing import Any

import pytest

from lmstudio_integrations.emulator.engines import generation
from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp import constraints, request_body
from lmstudio_integrations.types._config_base import wire_keys
from lmstudio_integrations.types.config import LlmPredictionConfig


def from_fields(**fields: Any) -> LlmPredictionConfig:
    return LlmPredictionConfig.from_fields({f"llm.prediction.{key}": value for key, value in fields.items()})


def test_whatever_changes_probabilities_says_so() -> None:
    others = {"temperature", "top_k_sampling", "xtc_threshold", "seed", "reasoning_budget"}
    rows = wire_keys(LlmPredictionConfig)
    assert {ours for ours, _, _ in request_body._SAMPLING if rows[ours].changes is None} == others


def test_each_setting_gets_llama_cpps_name() -> None:
    config = LlmPredictionConfig(
        temperature=0.3,
        top_k_sampling=5,
        top_p_sampling=0.9,
        min_p_sampling=0.1,
        repeat_penalty=1.2,
        presence_penalty=0.4,
        frequency_penalty=0.6,
        xtc_probability=0.2,
        xtc_threshold=0.3,
        seed=9,
        reasoning_budget=64,
    )
    assert request_body.sampling(config) == {
        "temperature": 0.3,
        "top_k": 5,
        "top_p": 0.9,
        "min_p": 0.1,
        "repeat_penalty": 1.2,
        "presence_penalty": 0.4,
        "frequency_penalty": 0.6,
        "xtc_probability": 0.2,
        "xtc_threshold": 0.3,
        "seed": 9,
        "thinking_budget_tokens": 64,
    }


OFF: dict[str, Any] = {
    "top_p": 1.0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "xtc_probability": 0.0,
    "xtc_threshold": 0.1,
}
"""The settings that llama.cpp gets when everything is off."""


def test_what_is_switched_off_gets_a_neutral_value() -> None:
    names = ("topPSampling", "minPSampling", "repeatPenalty", "seed", "llama.presencePenalty", "reasoning.budgetTokens")
    config = from_fields(**{name: {"checked": False, "value": 0.5} for name in names})
    assert request_body.sampling(config) == OFF
    config = LlmPredictionConfig(top_p_sampling=False, min_p_sampling=False, seed=False)
    assert request_body.sampling(config) == OFF


def test_what_is_zero_is_not_switched_off() -> None:
    body = request_body.sampling(LlmPredictionConfig(temperature=0, top_p_sampling=0, seed=0))
    assert (body["temperature"], body["top_p"], body["seed"]) == (0, 0, 0)


def test_settings_without_a_field_of_their_own_count_too() -> None:
    config = LlmPredictionConfig(
        raw={
            "llm.prediction.llama.mirostatSampling": {"version": 2, "learningRate": 0.2, "targetEntropy": 4},
            "llm.prediction.llama.locallyTypicalSampling": {"checked": True, "value": 0.7},
            "llm.prediction.unheardOf": 1,
        }
    )
    assert request_body.sampling(config) == OFF | {
        "mirostat": 2,
        "mirostat_eta": 0.2,
        "mirostat_tau": 4,
        "typical_p": 0.7,
    }
    short = {"llm.prediction.llama.mirostatSampling": {"version": 1}}
    assert request_body.sampling(LlmPredictionConfig(raw=short)) == OFF | {
        "mirostat": 1,
        "mirostat_eta": 0.1,
        "mirostat_tau": 5,
    }
    off = {
        "llm.prediction.llama.mirostatSampling": {"version": 0},
        "llm.prediction.llama.locallyTypicalSampling": {"checked": False, "value": 0.7},
    }
    assert request_body.sampling(LlmPredictionConfig(raw=off)) == OFF


def test_a_logit_bias_forbids_tokens_or_adds_to_them() -> None:
    config = from_fields(**{"llama.logitBias": [[1, 2.5], [3, "-inf"]]})
    assert request_body.sampling(config) == OFF | {"logit_bias": [[1, 2.5], [3, False]]}


def test_a_logit_bias_of_a_text_is_rejected_because_a_request_has_ids() -> None:
    with pytest.raises(EngineError, match="Invalid logit bias: a token must be an id, got ' yes'"):
        request_body.sampling(LlmPredictionConfig(logit_bias={" yes": 1.0}))


def test_the_defaults_of_lm_studio_become_a_request() -> None:
    config = from_fields(
        temperature=0.8,
        topKSampling=40,
        repeatPenalty={"checked": True, "value": 1.1},
        logProbs={"checked": False, "value": 0},
        seed={"checked": False, "value": -1},
    )
    assert request_body.sampling(config) == OFF | {"temperature": 0.8, "top_k": 40, "repeat_penalty": 1.1}
    assert generation.candidate_count(config) is None
    assert constraints.structured_output(config) == {}
    assert request_body.manual_template(config) is None
    assert generation.stop_strings(config) == []


LOADED = "{{ messages }}"


def with_template(template: str) -> LlmPredictionConfig:
    return from_fields(promptTemplate={"type": "jinja", "jinjaPromptTemplate": {"template": template}})


def test_lines_before_the_loaded_template_are_arguments_of_the_template() -> None:
    config = with_template(f"{{%- set keep = true %}}\n{{% set clear = false -%}}\n{LOADED}")
    arguments = request_body.template_arguments(config.merged(LlmPredictionConfig(enable_thinking=True)), LOADED)
    assert arguments == {"chat_template_kwargs": {"enable_thinking": True, "keep": True, "clear": False}}
    assert request_body.template_arguments(with_template(LOADED), LOADED) == {}
    on_one_line = with_template(f"{{%- set keep = true %}}{LOADED}")
    assert request_body.template_arguments(on_one_line, LOADED) == {"chat_template_kwargs": {"keep": True}}
    assert request_body.manual_template(config) is None


@pytest.mark.parametrize("loaded", [LOADED, ""])
@pytest.mark.parametrize(
    "template",
    ["", "{{ other }}", f"{{% set a = 1 %}}\n{LOADED}", f"{{% set a = true %}}{LOADED}{LOADED}", f"{LOADED}\n"],
)
def test_another_template_than_the_loaded_one_is_rejected(template: str, loaded: str) -> None:
    with pytest.raises(EngineError, match="a Jinja template for a single prediction, unless it is the loaded one"):
        request_body.template_arguments(with_template(template), loaded)


def test_enable_thinking_is_an_argument_of_the_template() -> None:
    assert request_body.template_arguments(LlmPredictionConfig(), "") == {}
    assert request_body.template_arguments(LlmPredictionConfig(enable_thinking=False), "") == {
        "chat_template_kwargs": {"enable_thinking": False}
    }
