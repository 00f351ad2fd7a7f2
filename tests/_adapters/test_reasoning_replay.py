"""What is known of a chat template and earlier thoughts: in the profile, and in the metadata of responses."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from llama_index.core.base.llms.types import TextBlock, ThinkingBlock
from llama_index.core.llms import ChatMessage

from lmstudio_integrations import Client
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests.support.adapters import covering
from tests.support.treatments import BY_PLACE, TEMPLATES, TreatingEngine

LANGCHAIN: list[Any] = [
    HumanMessage("Hello"),
    AIMessage("Hi.", additional_kwargs={"reasoning_content": "A greeting."}),
    HumanMessage("Bye"),
]
LLAMA_INDEX = [
    ChatMessage("Hello", role="user"),
    ChatMessage(role="assistant", blocks=[ThinkingBlock(content="A greeting."), TextBlock(text="Hi.")]),
    ChatMessage("Bye", role="user"),
]


def serving() -> Emulator:
    return Emulator([ModelEntry(key=key) for key in TEMPLATES], engines={"scripted": TreatingEngine()})


@pytest.fixture
def server() -> Iterator[Emulator]:
    with serving() as server:
        yield server


def _joined(chunks: list[Any]) -> Any:
    return sum(chunks[1:], chunks[0])


async def _collect(chunks: Any) -> list[Any]:
    return [chunk async for chunk in chunks]


async def _achat_stream(llm: LMStudio) -> Any:
    return (await _collect(await llm.astream_chat(LLAMA_INDEX)))[-1]


async def _astream(llm: ChatLMStudio) -> AIMessageChunk:
    joined = _joined(await _collect(llm.astream(LANGCHAIN)))
    assert isinstance(joined, AIMessageChunk)
    return joined


LANGCHAIN_WAYS: dict[str, Callable[[Any], Any]] = {
    "invoke": lambda llm: llm.invoke(LANGCHAIN),
    "stream": lambda llm: _joined(list(llm.stream(LANGCHAIN))),
    "ainvoke": lambda llm: llm.ainvoke(LANGCHAIN),
    "astream": _astream,
}
LLAMA_INDEX_WAYS: dict[str, Callable[[Any], Any]] = {
    "chat": lambda llm: llm.chat(LLAMA_INDEX),
    "stream_chat": lambda llm: list(llm.stream_chat(LLAMA_INDEX))[-1],
    "achat": lambda llm: llm.achat(LLAMA_INDEX),
    "astream_chat": _achat_stream,
}


async def _done(response: Any) -> Any:
    return await response if isinstance(response, Awaitable) else response


@pytest.mark.parametrize(("way", "key"), covering(LANGCHAIN_WAYS, TEMPLATES))
def test_the_profile_has_it_from_the_first_response_to_a_conversation_with_thoughts_on(
    server: Emulator, way: str, key: str
) -> None:
    llm = ChatLMStudio(model=key, host=server.address)
    llm.load()
    assert "reasoning_replay" not in llm.profile
    llm.invoke("Hello")
    assert "reasoning_replay" not in llm.profile
    response = asyncio.run(_done(LANGCHAIN_WAYS[way](llm)))
    assert response.response_metadata["reasoning_replay"] == BY_PLACE[key]
    assert dict(llm.profile)["reasoning_replay"] == BY_PLACE[key]
    assert "reasoning_replay" not in llm.model_copy().profile


@pytest.mark.parametrize("way", LLAMA_INDEX_WAYS)
def test_the_metadata_of_a_response_has_it(server: Emulator, way: str) -> None:
    llm = LMStudio(model="current", host=server.address)
    response = asyncio.run(_done(LLAMA_INDEX_WAYS[way](llm)))
    assert response.raw["stats"]["reasoning_replay"] == BY_PLACE["current"]
    plain: Any = llm.chat([ChatMessage("Hello", role="user")]).raw
    assert "reasoning_replay" not in plain["stats"]


def test_thoughts_that_are_not_sent_say_nothing_about_the_template(server: Emulator) -> None:
    llm = ChatLMStudio(model="kept", host=server.address)
    response = llm.invoke(LANGCHAIN, send_reasoning=False)
    assert "reasoning_replay" not in response.response_metadata
    assert "reasoning_replay" not in llm.profile


def test_of_hosts_that_differ_the_profile_has_the_worst_in_each_place(server: Emulator) -> None:
    with serving() as other:
        for each, key in ((server, "stripped"), (other, "current")):
            with Client(each.address) as client:
                client.llm.load_new_instance(key, "mine")
        hosts = [server.address, other.address]
        llm = ChatLMStudio(model="mine", host=hosts, load_policy="require_loaded", on_config_mismatch="ignore")
        llm.invoke(LANGCHAIN)
        used = server if server.predictions else other
        used.unload("mine")
        llm.invoke(LANGCHAIN)
        assert len(server.predictions) == len(other.predictions) == 1
        assert dict(llm.profile)["reasoning_replay"] == BY_PLACE["stripped"]


def test_after_another_load_it_is_found_out_anew(server: Emulator) -> None:
    llm = ChatLMStudio(model="stripped", host=server.address)
    llm.invoke(LANGCHAIN)
    assert "reasoning_replay" in llm.profile
    server.unload("stripped")
    llm.invoke("Hello")
    assert "reasoning_replay" not in llm.profile
