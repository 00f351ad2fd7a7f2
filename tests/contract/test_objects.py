"""What becomes of our objects in the hands of other programs; the table has the peers beside them."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from tests.contract.objects import LANGCHAIN, LLAMA_INDEX, PROMPT, SECRET, TEXT, outcome


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    model = ModelEntry(key="m", context_length=4096, rules=({"then": [{"text": TEXT}]},))
    with Emulator([model, ModelEntry(key="other")], tokens=[SECRET]) as server:
        yield server.address


@pytest.fixture
def chat(host: str) -> ChatLMStudio:
    model = ChatLMStudio(model="m", temperature=0.5, host=host, api_token=SecretStr(SECRET))
    model.invoke(PROMPT)
    return model


@pytest.fixture
def llm(host: str) -> LMStudio:
    model = LMStudio(model="m", temperature=0.5, host=host, api_token=SecretStr(SECRET))
    model.complete(PROMPT)
    return model


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("name", LANGCHAIN)
def test_an_object_of_langchain(name: str, chat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LM_API_TOKEN", SECRET)
    assert outcome(LANGCHAIN[name], chat) == LANGCHAIN[name].ours


@pytest.mark.parametrize("name", LLAMA_INDEX)
def test_an_object_of_llama_index(name: str, llm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LM_API_TOKEN", SECRET)
    assert outcome(LLAMA_INDEX[name], llm) == LLAMA_INDEX[name].ours


@pytest.mark.parametrize("make", [ChatLMStudio, LMStudioLLM, LMStudioEmbeddings, LMStudio, LMStudioEmbedding])
@pytest.mark.parametrize(
    ("host", "variable", "address"),
    [
        (None, None, "http://127.0.0.1:1234/v1"),
        (None, "box", "http://box:1234/v1"),
        ("box:1", "other", "http://box:1/v1"),
        ("http://box:1/v1", None, "http://box:1/v1"),
        ("https://box/team", None, "https://box:443/team/v1"),
        (["box:2", "box:1"], None, "http://box:2/v1"),
    ],
)
def test_who_reads_the_address_for_clients_of_openai_finds_the_server(
    make: Any, host: Any, variable: str | None, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LMSTUDIO_HOST", raising=False)
    if variable is not None:
        monkeypatch.setenv("LMSTUDIO_HOST", variable)
    model = make(model="m", host=host)
    assert model.base_url == address
    model.base_url = "elsewhere:2"
    assert (model.host, model.base_url) == ("elsewhere:2", "http://elsewhere:2/v1")
