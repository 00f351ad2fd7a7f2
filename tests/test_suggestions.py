"""Settings of other packages lead to ours, or to what replaces them; only misspellings get the nearest name."""

from typing import Any

import pytest

from lmstudio_integrations._adapters.input_checks import ALIASES
from lmstudio_integrations._support.suggestions import (
    _COUNTERPARTS,
    _METHODS,
    _REMEDIES,
    closest_names,
    explain_unknown_name,
)
from lmstudio_integrations.client.api.base import BaseClient, ModelParameters
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, LlmPredictionConfig
from tests.support.adapters import ADAPTERS

OPENAI = """
    openai_api_base openai_api_key base_url api_key default_headers default_query http_client http_async_client
    max_completion_tokens model_kwargs extra_body reasoning_effort request_timeout n organization use_responses_api
    openai_proxy openai_organization
"""
OLLAMA = """
    num_ctx num_predict num_thread num_gpu keep_alive format client_kwargs async_client_kwargs sync_client_kwargs
    reasoning validate_model_on_init mirostat mirostat_eta mirostat_tau repeat_last_n tfs_z
"""
LLAMA_INDEX = """
    is_chat_model api_base json_mode prompt_key thinking reuse_client api_version max_new_tokens context_size
    async_http_client tokenizer
"""

ACCEPTED = {"LangChain": ALIASES.keys(), "LlamaIndex": {*ALIASES, "request_timeout"}}
"""Names of other packages that the adapters accept."""

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
    assert not _COUNTERPARTS.keys() & _REMEDIES.keys()


@pytest.mark.parametrize("name", [*OPENAI.split(), *OLLAMA.split(), *LLAMA_INDEX.split()])
@pytest.mark.parametrize("adapter", ["ChatLMStudio", "LMStudio"])
def test_a_setting_of_another_package_is_accepted_or_leads_to_what_helps(adapter: str, name: str) -> None:
    value: Any = 30 if "timeout" in name else "low" if name == "reasoning_effort" else "x"
    if name in ADAPTERS[adapter].make.model_fields or name in ACCEPTED[ADAPTERS[adapter].framework]:
        ADAPTERS[adapter].make(**{name: value})
        return
    with pytest.raises(ValueError, match=name) as caught:
        ADAPTERS[adapter].make(**{name: value})
    counterparts = [f"did you mean {own!r}?" for own in _COUNTERPARTS.get(name, ())]
    assert any(text in str(caught.value) for text in [*counterparts, _REMEDIES.get(name, "known are")])
    assert "known are" not in str(caught.value)
    assert "lists the known ones" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "remedies"),
    [
        ({"reasoning": "low"}, ["enable_thinking=True", "reasoning_effort='low'"]),
        ({"client_kwargs": {"timeout": 60}}, ["idle_timeout=60", "headers="]),
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
    assert "did you mean" not in explain_unknown_name(name, ["api_token", "draft_model", "timeout"])


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
    assert explain_unknown_name("port", ["host", "timeout"], given) == text
    assert explain_unknown_name("port", ["timeout"], given) == "known are timeout"


def test_a_counterpart_counts_only_where_it_is_known() -> None:
    assert explain_unknown_name("stop_sequences", ["stop", "seed"]) == "did you mean 'stop'?"
    assert explain_unknown_name("stop_sequences", ["stop_strings", "seed"]) == "did you mean 'stop_strings'?"
    assert explain_unknown_name("stop_sequences", ["seed", "preset"]) == "known are preset, seed"


def test_a_beginning_is_suggested_before_a_misspelling() -> None:
    models = ["qwen/qwen3-vl-4b", "qwen/qwen3-4b-2507", "qwen/qwen3-4b-thinking-2507", "qwen/qwen2-4b"]
    assert closest_names("Qwen/qwen3-4b", models, most=3) == ["qwen/qwen3-4b-2507", "qwen/qwen3-4b-thinking-2507"]
    assert closest_names("qwen/qwen4-4b", models) == ["qwen/qwen2-4b"]
