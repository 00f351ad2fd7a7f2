"""Settings by their own names have types; other names and forms are for programs that are moved here.

`tests/docs/test_snippet_types.py` checks this file with each checker. An ignored line that is no error is one.
"""

from pathlib import Path
from typing import Any, assert_type

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


MAKERS: list[Any] = [ChatLMStudio, LMStudioLLM, LMStudio, LMStudioEmbeddings, LMStudioEmbedding]


def test_settings_have_the_types_that_are_held() -> None:
    chat = ChatLMStudio(host=HOST, api_token=SecretStr("k"), model="m", stop=["x"], temperature=0, ttl=600)
    assert_type(chat.stop, list[str] | None)
    assert_type(chat.api_token, SecretStr | None)
    assert_type(LMStudio(host=HOST).stop, list[str] | None)
    assert_type(LMStudioLLM(ca_file=None).api_token, SecretStr | None)
    assert_type(LMStudioEmbeddings(model="m", query_prefix="query: ").api_token, SecretStr | None)
    assert_type(LMStudioEmbedding(model="m").model, str | None)
    assert ChatLMStudio(max_tokens=False, top_logprobs=2, headers={"X-Team": "a"}).stop is None


@pytest.mark.parametrize("make", MAKERS)
def test_other_names_and_forms_of_a_setting_become_those_that_are_held(make: Any) -> None:
    model = make(base_url=HOST, api_key="k", model_name="m", request_timeout=30)
    assert (model.host, token_of(model.api_token), model.model, model.timeout) == (HOST, "k", "m", 30)
    assert model.model_name == "m"
    model.model_name = "n"
    model.api_token = "l"
    assert (model.model, token_of(model.api_token)) == ("n", "l")
    with pytest.raises(AttributeError, match="api_key"):
        print(model.api_key)


@pytest.mark.parametrize("make", [ChatLMStudio, LMStudioLLM, LMStudio])
def test_stop_strings_become_a_list(make: Any) -> None:
    model = make(stop="x")
    assert model.stop == ["x"]
    assert make(stop=("x", "y")).stop == ["x", "y"]
    model.stop = ("x", "y")
    assert model.stop == ["x", "y"]
    assert model.model_copy(update={"stop": "z"}).stop == ["z"]


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


def test_wrong_values_are_rejected() -> None:
    with pytest.raises(ValueError, match="stop"):
        ChatLMStudio(stop=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="api_token"):
        LMStudio(api_token=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="host"):
        LMStudioEmbedding(host=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="model"):
        LMStudioLLM(model=Path("m"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout"):
        LMStudio(timeout="soon")  # type: ignore[arg-type]
    for name, value in {"api_key": 5, "base_url": 5, "model_name": Path("m"), "request_timeout": "soon"}.items():
        for make in MAKERS:
            with pytest.raises(ValueError, match=name if name in {"api_key", "request_timeout"} else "host|model"):
                make(**{name: value})
    with pytest.raises(ValueError, match="load_config"):
        ChatLMStudio(load_config=5)  # type: ignore[arg-type]


def test_wrong_names_are_rejected() -> None:
    with pytest.raises(ValueError, match="base_ulr"):
        ChatLMStudio(base_ulr=HOST)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="stop"):
        LMStudioEmbeddings(stop="x")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="request_timeouts"):
        ChatLMStudio(request_timeouts=30)  # type: ignore[call-arg]
