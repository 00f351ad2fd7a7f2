"""What the constructors accept at run time, type checkers accept; what they reject, type checkers reject.

`tests/docs/test_snippet_types.py` checks this file with each checker. An ignored line that is no error is one.
"""

from pathlib import Path
from typing import assert_type

import pytest
from pydantic import SecretStr

from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig

HOST = "http://localhost:9/v1"
CONFIG = LlmLoadModelConfig(context_length=2048)
EMBEDDING_CONFIG = EmbeddingLoadModelConfig(context_length=2048)


def token_of(held: SecretStr | None) -> str:
    assert held is not None
    return held.get_secret_value()


def test_chat_models_of_langchain() -> None:
    model = ChatLMStudio(base_url=HOST, api_key="k", model_name="m", stop="x", temperature=0, ttl=600)
    assert_type(model.stop, list[str] | None)
    assert_type(model.api_token, SecretStr | None)
    assert_type(model.model_name, str | None)
    assert (model.host, token_of(model.api_token), model.model, model.stop) == (HOST, "k", "m", ["x"])
    assert model.model_name == "m"
    same = ChatLMStudio(host=HOST, api_token=SecretStr("k"), model="m", stop=["x"], temperature=0.0, ttl=600.0)
    assert same == model
    assert ChatLMStudio(stop=("x", "y"), max_tokens=False, top_logprobs=2).stop == ["x", "y"]
    assert ChatLMStudio(stop=None, api_key=SecretStr("k"), host=None, headers={"X-Team": "a"}).stop is None


def test_completion_models_of_langchain() -> None:
    model = LMStudioLLM(base_url=HOST, api_key="k", model_name="m", stop="x", ca_file=None)
    assert_type(model.stop, list[str] | None)
    assert_type(model.api_token, SecretStr | None)
    assert_type(model.model_name, str | None)
    model.model_name = "m"
    assert model == LMStudioLLM(host=HOST, api_token="k", model="m", stop=["x"])


def test_embeddings_of_langchain() -> None:
    model = LMStudioEmbeddings(base_url=HOST, api_key="k", model_name="m", query_prefix="query: ")
    assert_type(model.api_token, SecretStr | None)
    assert_type(model.model_name, str | None)
    assert model.model_name == "m"
    assert model == LMStudioEmbeddings(host=HOST, api_token=SecretStr("k"), model="m", query_prefix="query: ")


def test_language_models_of_llama_index() -> None:
    model = LMStudio(base_url=HOST, api_key="k", model_name="m", stop="x", request_timeout=30)
    assert_type(model.stop, list[str] | None)
    assert_type(model.api_token, SecretStr | None)
    assert_type(model.model_name, str | None)
    assert (model.host, token_of(model.api_token), model.model, model.stop) == (HOST, "k", "m", ["x"])
    assert model.model_name == "m"
    assert (model.timeout, LMStudio(additional_kwargs={"seed": 1}).seed) == (30, 1)


def test_embedding_models_of_llama_index() -> None:
    model = LMStudioEmbedding(base_url=HOST, api_key=SecretStr("k"), model_name="m", request_timeout=30)
    assert_type(model.api_token, SecretStr | None)
    assert (model.host, token_of(model.api_token), model.model, model.timeout) == (HOST, "k", "m", 30)


def test_load_settings_in_either_spelling() -> None:
    assert ChatLMStudio(load_config={"context_length": 2048}).load_config == CONFIG
    assert LMStudioLLM(load_config={"contextLength": 2048}).load_config == CONFIG
    assert LMStudio(load_config=CONFIG).load_config == CONFIG
    assert LMStudioEmbeddings(load_config={"context_length": 2048}).load_config == EMBEDDING_CONFIG
    assert LMStudioEmbedding(load_config={"contextLength": 2048}).load_config == EMBEDDING_CONFIG
    assert ChatLMStudio(load_config={"gpu": {"main_gpu": 1}}) == ChatLMStudio(load_config={"gpu": {"mainGpu": 1}})


def test_misspelt_load_settings_are_rejected() -> None:
    with pytest.raises(ValueError, match="context_lenght"):
        ChatLMStudio(load_config={"context_lenght": 2048})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="context_lenght"):
        LMStudioLLM(load_config={"context_lenght": 2048})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="context_lenght"):
        LMStudio(load_config={"context_lenght": 2048})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="context_lenght"):
        LMStudioEmbeddings(load_config={"context_lenght": 2048})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="context_lenght"):
        LMStudioEmbedding(load_config={"context_lenght": 2048})  # type: ignore[arg-type]


def test_an_assigned_value_is_held_in_the_type_that_is_read() -> None:
    model = ChatLMStudio()
    model.stop = "x"
    model.api_token = "k"
    assert (model.stop, token_of(model.api_token)) == (["x"], "k")
    model.stop = ("x", "y")
    assert model.stop == ["x", "y"]
    assert model.model_copy(update={"stop": "z"}).stop == ["z"]


def test_wrong_values_are_rejected() -> None:
    with pytest.raises(ValueError, match="stop"):
        ChatLMStudio(stop=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="api_token"):
        LMStudio(api_token=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="api_key"):
        LMStudioEmbeddings(api_key=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="host"):
        LMStudioEmbedding(base_url=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="model"):
        LMStudioLLM(model_name=Path("m"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="request_timeout"):
        LMStudio(request_timeout="soon")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="load_config"):
        ChatLMStudio(load_config=5)  # type: ignore[arg-type]


def test_wrong_names_are_rejected() -> None:
    with pytest.raises(ValueError, match="base_ulr"):
        ChatLMStudio(base_ulr=HOST)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="stop"):
        LMStudioEmbeddings(stop="x")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="request_timeouts"):
        ChatLMStudio(request_timeouts=30)  # type: ignore[call-arg]


def test_other_names_of_a_setting_are_no_attributes() -> None:
    model = ChatLMStudio(api_key="k")
    with pytest.raises(AttributeError, match="api_key"):
        print(model.api_key)  # type: ignore[arg-type, unused-ignore]  # pydantic's plugin gives it a type
