"""What is known of a chat template and earlier thoughts: in the profile, and in the metadata of responses."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.base.llms.types import TextBlock, ThinkingBlock
from llama_index.core.llms import ChatMessage

from lmstudio_integrations import Client
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.ways import LANGCHAIN, LLAMA_INDEX, metadata_of, said, whole
from tests.support.adapters import covering
from tests.support.treatments import BY_PLACE, TEMPLATES, TreatingEngine

pytestmark = pytest.mark.leaf("reasoning_replay")

MESSAGES: list[Any] = [
    HumanMessage("Hello"),
    AIMessage("Hi.", additional_kwargs={"reasoning_content": "A greeting."}),
    HumanMessage("Bye"),
]
CHAT_MESSAGES = [
    *said("Hello"),
    ChatMessage(role="assistant", blocks=[ThinkingBlock(content="A greeting."), TextBlock(text="Hi.")]),
    *said("Bye"),
]


def serving() -> Emulator:
    return Emulator([ModelEntry(key=key) for key in TEMPLATES], engines={"scripted": TreatingEngine()})


@pytest.fixture
def server() -> Iterator[Emulator]:
    with serving() as server:
        yield server


@pytest.mark.parametrize(("name", "key"), covering(["invoke", "astream"], TEMPLATES))
def test_the_profile_has_it_from_the_first_response_to_a_conversation_with_thoughts_on(
    server: Emulator, name: str, key: str
) -> None:
    llm = ChatLMStudio(model=key, host=server.address)
    llm.load()
    assert "reasoning_replay" not in llm.profile
    llm.invoke("Hello")
    assert "reasoning_replay" not in llm.profile
    response = whole(LANGCHAIN[name](llm, MESSAGES))
    assert metadata_of(response)["reasoning_replay"] == BY_PLACE[key]
    assert dict(llm.profile)["reasoning_replay"] == BY_PLACE[key]
    assert "reasoning_replay" not in llm.model_copy().profile


@pytest.mark.parametrize("name", ["chat", "astream_chat"])
def test_the_metadata_of_a_response_has_it(server: Emulator, name: str) -> None:
    llm = LMStudio(model="current", host=server.address)
    response = whole(LLAMA_INDEX[name](llm, CHAT_MESSAGES))
    assert metadata_of(response)["reasoning_replay"] == BY_PLACE["current"]
    assert "reasoning_replay" not in metadata_of(llm.chat(said("Hello")))


def test_thoughts_that_are_not_sent_say_nothing_about_the_template(server: Emulator) -> None:
    llm = ChatLMStudio(model="kept", host=server.address)
    response = llm.invoke(MESSAGES, send_reasoning=False)
    assert "reasoning_replay" not in response.response_metadata
    assert "reasoning_replay" not in llm.profile


@pytest.mark.leaf
def test_of_hosts_that_differ_the_profile_has_the_worst_in_each_place(server: Emulator) -> None:
    with serving() as other:
        for each, key in ((server, "stripped"), (other, "current")):
            with Client(each.address) as client:
                client.llm.load_new_instance(key, "mine")
        hosts = [server.address, other.address]
        llm = ChatLMStudio(model="mine", host=hosts, load_policy="require_loaded", on_config_mismatch="ignore")
        llm.invoke(MESSAGES)
        used = server if server.predictions else other
        used.unload("mine")
        llm.invoke(MESSAGES)
        assert len(server.predictions) == len(other.predictions) == 1
        assert dict(llm.profile)["reasoning_replay"] == BY_PLACE["stripped"]


def test_after_another_load_it_is_found_out_anew(server: Emulator) -> None:
    llm = ChatLMStudio(model="stripped", host=server.address)
    llm.invoke(MESSAGES)
    assert "reasoning_replay" in llm.profile
    server.unload("stripped")
    llm.invoke("Hello")
    assert "reasoning_replay" not in llm.profile
