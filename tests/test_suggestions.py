"""Settings of other packages lead to ours, or to what replaces them; only misspellings get the nearest name."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from lmstudio_integrations._support.suggestions import (
    _NAMES_ELSEWHERE,
    _OTHER_NAMES,
    closest_names,
    explain_unknown_setting,
)
from lmstudio_integrations.client.api.base import BaseClient, ModelParameters
from lmstudio_integrations.client.support.arguments import TIMEOUTS
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, LlmPredictionConfig
from tests.support.adapters import ADAPTERS, EMBEDDING_MODELS

OURS = {
    *LlmPredictionConfig.model_fields,
    *LlmLoadModelConfig.model_fields,
    *EmbeddingLoadModelConfig.model_fields,
    *ModelParameters.__annotations__,
    *TIMEOUTS,
    *(BaseClient.__init__.__annotations__),
    *(name for adapter in ADAPTERS.values() for name in adapter.make.model_fields),
}


def test_every_counterpart_is_a_setting_of_ours() -> None:
    assert _NAMES_ELSEWHERE.keys() <= OURS


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_hint_names_what_exists_where_it_is_given(name: str) -> None:
    adapter = ADAPTERS[name]
    calls = {argument for each in (adapter.make,) if hasattr(each, "_call") for argument in each._call.request}
    for other in _OTHER_NAMES:
        ways: list[Callable[[], Any]] = [partial(adapter.make, **{other: "x"})]
        if adapter.takes_settings:
            ways.append(partial(adapter.make()._resolve_call, {other: "x"}))
        for way in ways:
            try:
                way()
            except (TypeError, ValueError) as error:
                for own in re.findall(r"unknown setting '\w+'; did you mean '(\w+)'", str(error)):
                    assert own in calls or own in adapter.make.model_fields


@pytest.mark.parametrize("name", EMBEDDING_MODELS)
def test_settings_of_language_models_elsewhere_are_said_to_be_such(name: str) -> None:
    for setting in ["max_completion_tokens", "stop_sequences", "stream", "thinking", "topK", "truncation"]:
        with pytest.raises(ValueError, match=f"'{setting}' is a setting of language models, and this is an embedding"):
            ADAPTERS[name].make(**{setting: "x"})


@pytest.mark.parametrize(
    ("kind", "name", "hint"),
    [
        (LlmLoadModelConfig, "n_gpu_layers", "did you mean 'gpu'?"),
        (EmbeddingLoadModelConfig, "n_batch", "did you mean 'eval_batch_size'?"),
        (EmbeddingLoadModelConfig, "keep_alive", "known are context_length, "),
        (LlmPredictionConfig, "context_length", "it takes effect while the model loads"),
        (LlmPredictionConfig, "top_logprobs", "did you mean 'log_probs'?"),
        (LlmPredictionConfig, "stream", "help(LlmPredictionConfig) lists the known ones"),
    ],
)
def test_a_config_names_its_own_settings(kind: Any, name: str, hint: str) -> None:
    with pytest.raises(LMStudioValueError, match=re.escape(f"unknown setting '{name}'; {hint}")):
        kind.parse({name: 1})


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("reasoning", "x", "did you mean 'enable_thinking'?"),
        ("reasoning", "low", "did you mean 'enable_thinking'? Write enable_thinking='low'"),
        ("client_kwargs", {"timeout": 60}, "write its entries as settings: timeout=60"),
        ("keep_alive", "5m", "did you mean 'ttl'? Write ttl=300"),
        ("truncation", None, "write prediction_config={'context_overflow_policy': POLICY}"),
        ("keep_alive", -1, "did you mean 'ttl'? Write load_policy='explicit', ttl=math.inf"),
        ("keep_alive", 0, "did you mean 'ttl'? Write unload_on_close=True"),
        ("num_predict", -1, "did you mean 'max_tokens'? Remove it"),
        ("num_predict", 5, "did you mean 'max_tokens'? Write max_tokens=5"),
        ("truncation", "auto", "write prediction_config={'context_overflow_policy': 'rollingWindow'}"),
        ("truncation", "disabled", "write prediction_config={'context_overflow_policy': 'stopAtLimit'}"),
        ("context_overflow_policy", "truncateMiddle", "write prediction_config={'context_overflow_policy': 'trunc"),
        ("service_tier", "flex", "remove it"),
        ("num_gpu", 20, "write load_config={'gpu': {'ratio': SHARE_OF_LAYERS}}"),
        ("num_gpu", -1, "write load_config={'gpu': {'ratio': SHARE_OF_LAYERS}}"),  # Ollama decides
        ("num_gpu", 0, "write load_config={'gpu': {'ratio': 'off'}}"),
        ("n_gpu_layers", -1, "write load_config={'gpu': {'ratio': 'max'}}"),
        ("n_gpu_layers", True, "write load_config={'gpu': {'ratio': SHARE_OF_LAYERS}}"),
        ("gpu", "max", "write load_config={'gpu': {'ratio': 'max'}}"),
        ("gpu", "auto", "write load_config={'gpu': {'ratio': SHARE_OF_LAYERS}}"),
        ("gpu_offload", 0.25, "write load_config={'gpu': {'ratio': 0.25}}"),
        ("gpu", {"ratio": 1}, "write load_config={'gpu': {'ratio': 1}}"),
        ("main_gpu", 1, "write load_config={'gpu': {'main_gpu': 1}}"),
        ("use_mmap", True, "write load_config={'try_mmap': True}"),
        ("num_thread", 4, "write prediction_config={'cpu_threads': 4}"),
        ("extra_body", {"ttl": 3}, "write its entries as settings: ttl=3"),
        ("model_kwargs", {"top_k": 3, "password": "abc"}, "write its entries as settings: top_k=3, password=*****"),
        ("options", "x", "write its entries as settings"),
        ("model_kwargs", {}, "remove it"),
        ("n", 1, "remove it"),
        ("n", None, "remove it"),
        (
            "format",
            "json",
            "use with_structured_output(schema), in LlamaIndex as_structured_llm; or pass response_format=… to the",
        ),
        ("n", 3, "a call has one response; make 3 calls"),
    ],
)
def test_a_setting_of_another_package_leads_to_ours(name: str, value: object, remedy: str) -> None:
    with pytest.raises(ValueError, match=f"unknown setting {name!r}") as caught:
        ADAPTERS["LMStudioLLM"].make(**{name: value})
    assert f"; {remedy}" in str(caught.value)


@pytest.mark.parametrize("entries", ["x", [1]])
def test_a_dict_of_settings_without_entries_leads_to_no_entries(entries: object) -> None:
    with pytest.raises(ValueError, match=r"write its entries as settings$"):
        ADAPTERS["LMStudioLLM"].make(options=entries)


class _Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("name", ["n", "tempratur", "idle_timeout", "timeout", "temperature", "max_tokens"])
def test_a_value_that_cannot_be_printed_is_an_error_about_its_setting(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ADAPTERS["LMStudioLLM"].make(**{name: _Unprintable()})


@pytest.mark.parametrize("name", ["api_version", "is_chat_model", "tokenizer"])
def test_a_name_that_is_merely_similar_is_not_suggested(name: str) -> None:
    assert "did you mean" not in explain_unknown_setting(name, ["api_token", "draft_model", "timeout"])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"host": "box.local", "port": 7777}, "write host='box.local:7777'"),
        ({"host": "http://box.local/v1", "port": "7777"}, "write host='127.0.0.1:7777'"),
        ({"port": "a b"}, "write host='127.0.0.1:PORT'"),
        ({"port": None}, "write host='127.0.0.1:PORT'"),
    ],
)
def test_a_port_belongs_to_the_address(given: dict[str, Any], text: str) -> None:
    assert explain_unknown_setting("port", ["host", "timeout"], given) == text
    assert explain_unknown_setting("port", ["timeout"], given) == "known are timeout"


def test_a_beginning_is_suggested_before_a_misspelling() -> None:
    models = ["qwen/qwen3-vl-4b", "qwen/qwen3-4b-2507", "qwen/qwen3-4b-thinking-2507", "qwen/qwen2-4b"]
    assert closest_names("Qwen/qwen3-4b", models, most=3) == ["qwen/qwen3-4b-2507", "qwen/qwen3-4b-thinking-2507"]
    assert closest_names("qwen/qwen4-4b", models) == ["qwen/qwen2-4b"]
