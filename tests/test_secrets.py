"""API tokens are never shown by the adapters, whatever goes wrong with their settings."""

import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

TOKEN = "sk-lm-abcdefgh:0123456789ABCDEFGHIJ"
ADAPTERS: list[Any] = [ChatLMStudio, LMStudioLLM, LMStudioEmbeddings, LMStudio, LMStudioEmbedding]


def _shows_the_token(text: str) -> bool:
    return any(TOKEN[start : start + 6] in text for start in range(6, len(TOKEN) - 6))


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", ["api_token", "api_key"])
@pytest.mark.parametrize("wrong", [{"tempature": 1}, {"ttl": -1}, {"model": 5}, {"model": "a", "model_name": "b"}])
def test_a_wrong_setting_does_not_show_the_token(adapter: Any, name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, ValueError)) as caught:
        adapter(**{"model": "m", name: TOKEN, **wrong})
    assert not _shows_the_token(str(caught.value))
    if isinstance(caught.value, ValidationError):
        assert not _shows_the_token(repr(caught.value.errors()))


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_token_is_in_no_repr_and_no_pickle(adapter: Any) -> None:
    made = adapter(model="m", api_token=TOKEN)
    assert not _shows_the_token(repr(made) + str(made))
    assert not _shows_the_token(pickle.dumps(made).decode("latin-1"))


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_token_that_is_assigned_later_is_hidden(adapter: Any) -> None:
    made = adapter(model="m")
    made.api_token = TOKEN
    copied = adapter(model="m").model_copy(update={"api_token": TOKEN})
    assert not _shows_the_token(repr(made) + str(made) + repr(copied))
    assert made.api_token.get_secret_value() == copied.api_token.get_secret_value() == TOKEN


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", ["host", "base_url"])
@pytest.mark.parametrize("host", [f"http://user:{TOKEN}@localhost:1234", TOKEN])
def test_a_host_with_credentials_is_refused_without_showing_them(adapter: Any, name: str, host: str) -> None:
    with pytest.raises((ValidationError, ValueError), match="pass the token as api_token") as caught:
        adapter(**{"model": "m", name: host})
    assert not _shows_the_token(str(caught.value))
