"""Settings of other packages lead to ours, or to what replaces them; only misspellings get the nearest name."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError

import lmstudio_integrations as lms
from lmstudio_integrations._adapters.input_checks import ALIASES, with_effect
from lmstudio_integrations._support.suggestions import (
    _COUNTERPARTS,
    _NAMES_BY_REMEDY,
    _REMEDIES,
    closest_names,
    explain_unknown_name,
    explain_unknown_setting,
)
from lmstudio_integrations.client.api.base import BaseClient, ModelParameters
from lmstudio_integrations.emulator import Catalog, Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, LlmPredictionConfig
from tests.support.adapters import ADAPTERS, EMBEDDING_MODELS, LANGUAGE_MODELS, Adapter, classes

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
"""Names of settings in other packages."""

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
    assert {own for names in _COUNTERPARTS.values() for own in names} <= OURS
    for needed, rows in _NAMES_BY_REMEDY.items():
        assert needed in OURS
        assert len(_REMEDIES[needed]) == sum(len(names.split()) for names in rows.values())


def hints(adapter: Adapter) -> Iterator[str]:
    """Yield what the constructor and a call say of every name in the tables."""
    for name in {"port", *_COUNTERPARTS, *(name for remedies in _REMEDIES.values() for name in remedies)}:
        ways: list[Callable[[], Any]] = [partial(adapter.make, **{name: "x"})]
        if adapter.takes_settings:
            ways.append(partial(adapter.make()._resolve_call, {name: "x"}))
        for way in ways:
            try:
                way()
            except (TypeError, ValueError) as error:
                hint = re.search(r"unknown setting '\w+'; (.*?)( \[type=|$)", str(error), re.MULTILINE)
                if hint is not None and "lists the known ones" not in hint[1]:
                    yield hint[1]


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_hint_names_what_exists_where_it_is_given(name: str) -> None:
    adapter = ADAPTERS[name]
    for hint in hints(adapter):
        helping = [adapter.make, *(classes(adapter.framework, "chat") if "chat model" in hint else ())]
        calls = {argument for each in helping if hasattr(each, "_call") for argument in each._call.request}
        for own in map("".join, re.findall(r"(\w+)=|(\w+)\(\)|mean '(\w+)'", hint)):
            assert own in calls or any(own in each.model_fields or hasattr(each, own) for each in helping), hint
        for config in re.findall(r"load_config=(\{.*\})", hint):
            adapter.make(load_config=ast.literal_eval(config))


@pytest.mark.parametrize("name", EMBEDDING_MODELS)
def test_settings_of_language_models_elsewhere_are_said_to_be_such(name: str) -> None:
    settings = (
        "max_completion_tokens n raw reasoning_effort response_format stop_sequences stream thinking topK truncation"
    )
    for setting in settings.split():
        with pytest.raises(ValueError, match=f"'{setting}' is a setting of language models, and this is an embedding"):
            ADAPTERS[name].make(**{setting: "x"})


def test_the_native_client_has_no_remedies_of_the_adapters() -> None:
    catalog = Catalog(models=(ModelEntry(key="tiny", engine="scripted"),))
    with Emulator(catalog=catalog) as server, lms.Client(server.address) as client:
        model = client.llm.model("tiny")
        ways: list[tuple[Callable[..., Any], str, str]] = [
            (partial(client.llm.model, "tiny"), "n_ctx", "write config={'context_length': …}"),
            (partial(client.llm.model, "tiny"), "use_mmap", "write config={'try_mmap': …}"),
            (partial(client.llm.model, "tiny"), "validate_model_on_init", "known are config, "),
            (partial(client.llm.model, "tiny"), "temperature", "known are config, "),
            (partial(model.respond, "Hello!"), "max_new_tokens", "write config={'max_tokens': …}"),
            (partial(model.respond, "Hello!"), "stop_sequences", "write config={'stop_strings': …}"),
            *(
                (partial(model.respond, "Hello!"), name, "known are check_context, ")
                for name in ("stream", "tools", "n", "keep_alive", "extra_body", "reasoning_effort")
            ),
            (lms.Client, "extra_headers", "did you mean 'headers'?"),
            (lms.Client, "request_timeout", "known are api_host, "),
        ]
        for way, name, hint in ways:
            with pytest.raises(LMStudioValueError, match=re.escape(f"unknown argument '{name}'; {hint}")):
                way(**{name: "x"})


@pytest.mark.parametrize(
    ("kind", "name", "hint"),
    [
        (LlmLoadModelConfig, "n_gpu_layers", "write gpu={'ratio': 0.5}"),
        (EmbeddingLoadModelConfig, "n_batch", "did you mean 'eval_batch_size'?"),
        (EmbeddingLoadModelConfig, "keep_alive", "known are context_length, "),
        (LlmPredictionConfig, "context_length", "it takes effect while the model loads"),
        (LlmPredictionConfig, "top_logprobs", "did you mean 'log_probs'?"),
        (LlmPredictionConfig, "stream", "help(LlmPredictionConfig) lists the known ones"),
    ],
)
def test_a_config_has_no_remedies_of_the_adapters(kind: Any, name: str, hint: str) -> None:
    with pytest.raises(LMStudioValueError, match=re.escape(f"unknown setting '{name}'; {hint}")):
        kind.parse({name: 1})


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
    unknown = with_effect(dict.fromkeys({*ELSEWHERE[name]} - accepted, "x"))
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
        ({"validate_model_on_init": True}, ["call load(), which also loads the model"]),
        ({"reasoning_effort": "low"}, ["chat models have it"]),
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
