"""Settings of other packages lead to ours, or to what replaces them; only misspellings get the nearest name."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError

from lmstudio_integrations._adapters.input_checks import ALIASES
from lmstudio_integrations._support.suggestions import (
    _COUNTERPARTS,
    _METHODS,
    _NAMES_BY_REMEDY,
    _REMEDIES,
    closest_names,
    explain_unknown_name,
    explain_unknown_setting,
)
from lmstudio_integrations.client.api.base import BaseClient, ModelParameters
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, LlmPredictionConfig
from tests.support.adapters import ADAPTERS, LANGUAGE_MODELS

LANGUAGE_MODELS_ELSEWHERE = """
    openai_api_base openai_api_key base_url api_key default_headers default_query http_client http_async_client
    max_completion_tokens model_kwargs extra_body extra_headers extra_query reasoning_effort request_timeout n best_of
    organization use_responses_api openai_proxy openai_organization service_tier store stream_chunk_timeout truncation
    http_socket_options include_response_headers client async_client root_client root_async_client disabled_params
    stream_options tiktoken_model_name verbosity user metadata modalities audio prediction functions function_call
    prompt_cache_key safety_identifier web_search_options previous_response_id max_tool_calls instructions conversation
    tools tool_choice response_format parallel_tool_calls logprobs top_logprobs batch_size echo suffix stream

    num_ctx num_predict num_thread num_gpu main_gpu num_batch num_keep keep_alive format client_kwargs
    async_client_kwargs sync_client_kwargs reasoning think validate_model_on_init mirostat mirostat_eta mirostat_tau
    repeat_last_n tfs_z typical_p penalize_newline use_mmap use_mlock low_vram f16_kv vocab_only numa options raw
    system template context images

    is_chat_model is_function_calling_model api_base json_mode prompt_key thinking reuse_client api_version
    max_new_tokens context_size context_window additional_kwargs async_http_client openai_client tokenizer strict
    should_use_structured_outputs num_output audio_config
"""
EMBEDDINGS_ELSEWHERE = """
    openai_api_base openai_api_key openai_api_type openai_api_version base_url api_key default_headers model_kwargs
    http_client client async_client chunk_size deployment embedding_ctx_length check_embedding_ctx_length skip_empty
    tiktoken_enabled allowed_special disallowed_special retry_min_seconds retry_max_seconds show_progress_bar dimensions
    request_timeout

    num_ctx num_gpu num_thread keep_alive client_kwargs mirostat temperature validate_model_on_init

    api_base api_version reuse_client mode additional_kwargs ollama_additional_kwargs
"""
"""Names of settings in other packages. `tools/migration_sweep.py` finds new ones."""

ELSEWHERE = {
    name: (EMBEDDINGS_ELSEWHERE if adapter.kind == "embedding" else LANGUAGE_MODELS_ELSEWHERE).split()
    for name, adapter in ADAPTERS.items()
    if adapter.kind != "reranker"
}

ACCEPTED = {"LangChain": ALIASES.keys(), "LlamaIndex": {*ALIASES, "request_timeout", "additional_kwargs"}}
"""Names of other packages that the constructors accept."""

OURS = {
    *LlmPredictionConfig.model_fields,
    *LlmLoadModelConfig.model_fields,
    *EmbeddingLoadModelConfig.model_fields,
    *ModelParameters.__annotations__,
    *(BaseClient.__init__.__annotations__),
    *(name for adapter in ADAPTERS.values() for name in adapter.make.model_fields),
}


def test_every_counterpart_is_a_setting_of_ours() -> None:
    assert {own for names in _COUNTERPARTS.values() for own in names} <= OURS | _METHODS
    assert len(_REMEDIES) == sum(len(names.split()) for names in _NAMES_BY_REMEDY.values())


def without_a_hint(way: Callable[..., Any], names: Iterable[str]) -> list[str]:
    """Return the errors about unknown settings that do not say what helps."""
    errors: list[str] = []
    for name in names:
        with pytest.raises(ValueError, match=name) as caught:
            way(**{name: "x"})
        errors.append(str(caught.value))
    return [error for error in errors if "known are" in error or "lists the known ones" in error]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_constructor_accepts_a_setting_of_another_package_or_says_what_replaces_it(name: str) -> None:
    adapter = ADAPTERS[name]
    accepted = {*adapter.make.model_fields, *ACCEPTED[adapter.framework]}
    assert without_a_hint(adapter.make, {*ELSEWHERE[name]} - accepted) == []


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_call_accepts_a_setting_of_another_package_or_says_what_replaces_it(name: str) -> None:
    adapter = ADAPTERS[name]
    accepted = {*adapter.make._call_names(), *ALIASES, *adapter.make._call.request}
    unknown = {*ELSEWHERE[name]} - accepted - {"metadata"}  # langchain-core has a parameter of this name
    assert without_a_hint(partial(adapter.call, adapter.make(), "Hello!"), unknown) == []


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_setting_of_the_object_is_none_of_a_call(name: str) -> None:
    adapter = ADAPTERS[name]
    with pytest.raises(ValueError, match=rf"pass it to {name}\(…\)"):
        adapter.call(adapter.make(), "Hello!", unload_on_close=True)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_extra_takes_no_names_of_settings_as_openais_extra_body_does(name: str) -> None:
    adapter, extra = ADAPTERS[name], {"llm.prediction.llama.cpuThreads": 2, "top_k": 40}
    with pytest.raises(ValueError, match="write 'top_k' as a setting"):
        adapter.make(extra=extra)
    with pytest.raises(ValueError, match="write 'top_k' as a setting"):
        adapter.call(adapter.make(), "Hello!", extra=extra)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_key_of_extra_that_is_no_string_is_named(name: str) -> None:
    adapter, extra = ADAPTERS[name], {5: 1}
    with pytest.raises(ValidationError, match=r"extra takes wire keys, .*; write a string instead of 5"):
        adapter.make(extra=extra)
    with pytest.raises(LMStudioValueError, match=r"extra takes wire keys, .*; write a string instead of 5"):
        adapter.call(adapter.make(), "Hello!", extra=extra)


@pytest.mark.parametrize(
    ("settings", "remedies"),
    [
        ({"reasoning": "low"}, ["enable_thinking=True", "reasoning_effort='low'"]),
        ({"client_kwargs": {"timeout": 60}}, ["idle_timeout=60", "headers="]),
        ({"keep_alive": "5m"}, ["ttl=300", "seconds"]),
        ({"request_timeout": 60}, ["first_token_timeout=60", "idle_timeout=60", "timeout=60 for the whole call"]),
        ({"extra_body": {"top_k": 40}}, ["each of its entries as a setting of its own"]),
        ({"ttl": -1}, ["ttl=300", "load_policy='explicit'", "ttl=math.inf"]),
        ({"format": "json"}, ["chat model", "response_format="]),
    ],
)
def test_what_takes_more_than_another_name_is_said_in_the_error(settings: dict[str, Any], remedies: list[str]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))) as caught:
        ADAPTERS["LMStudioLLM"].make(**settings)
    assert [remedy for remedy in remedies if remedy not in str(caught.value)] == []


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


def test_a_counterpart_counts_only_where_it_is_known() -> None:
    assert explain_unknown_setting("stop_sequences", ["stop", "seed"]) == "did you mean 'stop'?"
    assert explain_unknown_setting("stop_sequences", ["stop_strings", "seed"]) == "did you mean 'stop_strings'?"
    assert explain_unknown_setting("stop_sequences", ["seed", "preset"]) == "known are preset, seed"


def test_a_name_that_is_no_setting_gets_no_advice_about_settings() -> None:
    assert explain_unknown_name("images", ["texts", "tools"]) == "known are texts, tools"


def test_a_beginning_is_suggested_before_a_misspelling() -> None:
    models = ["qwen/qwen3-vl-4b", "qwen/qwen3-4b-2507", "qwen/qwen3-4b-thinking-2507", "qwen/qwen2-4b"]
    assert closest_names("Qwen/qwen3-4b", models, most=3) == ["qwen/qwen3-4b-2507", "qwen/qwen3-4b-thinking-2507"]
    assert closest_names("qwen/qwen4-4b", models) == ["qwen/qwen2-4b"]
