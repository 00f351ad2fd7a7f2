"""Prediction settings, texts and vectors in llama.cpp's form."""

import base64
import struct
import sys
from typing import Any

import jinja2
import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.base import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp import request_body
from lmstudio_integrations.types._config_base import wire_keys
from lmstudio_integrations.types.reasoning import Tags


def from_fields(**fields: Any) -> lms.LlmPredictionConfig:
    return lms.LlmPredictionConfig.from_fields({f"llm.prediction.{key}": value for key, value in fields.items()})


def test_whatever_changes_probabilities_says_so() -> None:
    others = {"temperature", "top_k_sampling", "xtc_threshold", "seed", "reasoning_budget"}
    rows = wire_keys(lms.LlmPredictionConfig)
    silent = {ours for ours, _, _ in request_body.SAMPLING if rows[ours].changes is None}
    assert silent == others, "set `changes` in the WireKey of a setting that changes probabilities"


def test_each_setting_gets_llama_cpps_name() -> None:
    config = lms.LlmPredictionConfig(
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


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        (
            {
                name: {"checked": False, "value": 0.5}
                for name in ("topPSampling", "minPSampling", "repeatPenalty", "seed", "reasoning.budgetTokens")
            },
            {},
        ),
        ({"temperature": 0, "topPSampling": {"checked": True, "value": 0}}, {"temperature": 0, "top_p": 0}),
        (
            {"llama.mirostatSampling": {"version": 2, "learningRate": 0.2, "targetEntropy": 4}, "unheardOf": 1},
            {"mirostat": 2, "mirostat_eta": 0.2, "mirostat_tau": 4},
        ),
        ({"llama.mirostatSampling": {"version": 1}}, {"mirostat": 1, "mirostat_eta": 0.1, "mirostat_tau": 5}),
        ({"llama.mirostatSampling": {"version": 0}}, {}),
        ({"llama.locallyTypicalSampling": {"checked": True, "value": 0.7}}, {"typical_p": 0.7}),
        ({"llama.locallyTypicalSampling": {"checked": False, "value": 0.7}}, {}),
        ({"llama.logitBias": [[1, 2.5], [3, "-inf"]]}, {"logit_bias": [[1, 2.5], [3, False]]}),
    ],
    ids=[
        *("what is switched off", "zero", "mirostat", "mirostat by default", "no mirostat"),
        *("typical", "not typical", "logit bias"),
    ],
)
def test_what_a_request_sets_changes_what_is_off(fields: dict[str, Any], changed: dict[str, Any]) -> None:
    assert request_body.sampling(from_fields(**fields)) == OFF | changed


def test_a_logit_bias_of_a_text_is_rejected_because_a_request_has_ids() -> None:
    with pytest.raises(EngineError, match="Invalid logit bias: a token must be an id, got ' yes'"):
        request_body.sampling(lms.LlmPredictionConfig(logit_bias={" yes": 1.0}))


LOADED = "{{ messages }}"


def with_template(template: str) -> lms.LlmPredictionConfig:
    return from_fields(promptTemplate={"type": "jinja", "jinjaPromptTemplate": {"template": template}})


def test_switches_before_the_loaded_template_are_arguments_of_it() -> None:
    config = with_template(f"{{%- set keep = true %}}\n{{% set clear = false -%}}\n{LOADED}")
    thinking = lms.LlmPredictionConfig(enable_thinking=False)
    assert request_body.template_arguments(config.merged(thinking), LOADED) == {
        "chat_template_kwargs": {"enable_thinking": False, "keep": True, "clear": False}
    }
    on_one_line = with_template(f"{{%- set keep = true %}}{LOADED}")
    assert request_body.template_arguments(on_one_line, LOADED) == {"chat_template_kwargs": {"keep": True}}
    for without in (with_template(LOADED), lms.LlmPredictionConfig()):
        assert request_body.template_arguments(without, LOADED) == {}


@pytest.mark.parametrize(
    ("template", "loaded"),
    [
        ("{{ other }}", LOADED),
        (f"{{% set a = 1 %}}\n{LOADED}", LOADED),
        (f"{{% set a = true %}}{LOADED}{LOADED}", LOADED),
        (f"{LOADED}\n", LOADED),
        ("", ""),
    ],
)
def test_another_template_than_the_loaded_one_is_rejected(template: str, loaded: str) -> None:
    with pytest.raises(EngineError, match="a prompt template for a single prediction, unless it is the loaded one"):
        request_body.template_arguments(with_template(template), loaded)


THINK = Tags("<think>", "</think>")
SHOW = "{% for m in messages %}{{ m.content | tojson }} {{ (m.reasoning_content or '') | tojson }}\n{% endfor %}"


@pytest.mark.leaf("reasoning_replay")
@pytest.mark.parametrize("switch", ["", "{%- set keep = true %}"])
@pytest.mark.parametrize(
    "content",
    [
        "<think>\n one\n</think>\n\nText.",
        "<think>one</think>a<think>two</think>\n\nb",
        "<think>one</think>Use </think>.",
        "Use </think> or <think>.",
        "Text.",
    ],
)
def test_lines_that_move_thoughts_do_what_they_do_in_jinja(content: str, switch: str) -> None:
    from lmstudio_integrations.types.reasoning_replay import move_thoughts

    config = with_template(f"{move_thoughts(THINK)}{switch}{LOADED}")
    messages: list[Any] = [{"role": "user", "content": content}, {"role": "assistant", "content": content}]
    assert request_body.template_arguments(config, LOADED).keys() == ({"chat_template_kwargs"} if switch else set())
    moved = request_body.with_thoughts(messages, config, LOADED)
    environment = jinja2.Environment(autoescape=False)
    shown = environment.from_string(f"{move_thoughts(THINK)}{SHOW}").render(messages=messages).strip()
    assert shown == environment.from_string(SHOW).render(messages=moved).strip()
    assert request_body.with_thoughts(messages, lms.LlmPredictionConfig(), LOADED) == messages


def test_a_copy_that_moves_no_thoughts_rejects_lines_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmstudio_integrations.types.reasoning_replay", None)
    moving = with_template(f"{{%- set thought_tags = ['<think>', '</think>'] -%}} {LOADED}")
    with pytest.raises(EngineError, match="a prompt template for a single prediction, unless it is the loaded one"):
        request_body.template_arguments(moving, LOADED)
    switched = request_body.template_arguments(with_template(f"{{%- set keep = true %}}{LOADED}"), LOADED)
    assert switched == {"chat_template_kwargs": {"keep": True}}


def test_a_template_of_prefixes_is_rejected() -> None:
    manual = {"type": "manual", "manualPromptTemplate": {"beforeUser": "Q: "}, "stopStrings": []}
    with pytest.raises(EngineError, match="a prompt template for a single prediction"):
        request_body.template_arguments(from_fields(promptTemplate=manual), LOADED)


@pytest.mark.parametrize(
    ("text", "is_surely_short"),
    [
        *((text, True) for text in ("a", "How fast is it?\n(Twice, 100%.)", "x" * 56)),
        *((text, False) for text in ("", " \n", "x" * 57, "a [SEP] b", "</s>", "|||", "é", "\ufdfa")),
    ],
)
def test_only_a_short_plain_text_is_sent_before_its_tokens_are_counted(text: str, is_surely_short: bool) -> None:
    assert request_body.fits(text, 64) is is_surely_short


def test_a_vector_is_exactly_that_of_the_engine() -> None:
    data = base64.b64encode(struct.pack("<3f", 0.5, -2.0, 0.0)).decode()
    assert request_body.vector_of({"data": [{"embedding": data}]}) == [0.5, -2.0, 0.0]
