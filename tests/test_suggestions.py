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
        with pytest.raises(ValueError, match=f"'{setting}'; remove it: it is a setting of language models"):
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
    ("name", "remedy"),
    [
        ("reasoning", "did you mean 'enable_thinking'?"),
        ("keep_alive", "did you mean 'ttl'?"),
        ("num_predict", "did you mean 'max_tokens'?"),
        ("truncation", "write prediction_config={'context_overflow_policy': …}"),
        ("context_overflow_policy", "write prediction_config={'context_overflow_policy': …}"),
        ("service_tier", "remove it"),
        ("num_gpu", "write load_config={'gpu': {'ratio': …}}, from 0 to 1"),
        ("main_gpu", "write load_config={'gpu': …}"),
        ("gpu", "write load_config={'gpu': …}"),
        ("use_mmap", "write load_config={'try_mmap': …}"),
        ("try_mmp", "did you mean load_config={'try_mmap': …}?"),
        ("num_thread", "write prediction_config={'cpu_threads': …}"),
        ("client_kwargs", "write its entries as settings"),
        ("model_kwargs", "write its entries as settings"),
        ("n", "remove it: a call has one response"),
        ("port", "write it behind the host: host='HOST:PORT'"),
        (
            "format",
            "use with_structured_output(schema), in LlamaIndex as_structured_llm; or, for any JSON object, ",
        ),
    ],
)
def test_a_setting_of_another_package_leads_to_ours(name: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=f"unknown setting {name!r}") as caught:
        ADAPTERS["LMStudioLLM"].make(**{name: "secret-value"})
    assert f"; {remedy}" in str(caught.value)
    assert "secret-value" not in str(caught.value)


@pytest.mark.parametrize("name", ["check_embedding_ctx_length", "chunk_size", "tiktoken_enabled"])
def test_embeddings_need_no_limits_of_requests(name: str) -> None:
    with pytest.raises(LMStudioValueError, match=f"unknown setting '{name}'; remove it"):
        ADAPTERS["LMStudioEmbeddings"].make(**{name: 1})


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


def test_a_beginning_is_suggested_before_a_misspelling() -> None:
    models = ["qwen/qwen3-vl-4b", "qwen/qwen3-4b-2507", "qwen/qwen3-4b-thinking-2507", "qwen/qwen2-4b"]
    assert closest_names("Qwen/qwen3-4b", models) == ["qwen/qwen3-4b-2507"]
    assert closest_names("qwen/qwen4-4b", models) == ["qwen/qwen2-4b"]
