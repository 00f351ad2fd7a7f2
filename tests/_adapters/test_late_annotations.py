"""Tools of modules whose annotations are text, and name types that are defined below them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.ways import AGENT_WARNINGS

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = AGENT_WARNINGS

MODEL: dict[str, Any] = {
    "key": "traveler",
    "rule": [
        {"when": {"role": "user"}, "then": [{"tool": "look", "arguments": {"place": {"name": "Oslo"}, "often": 2}}]},
        {"then": "It rains."},
    ],
}

looked: list[Any] = []


def look(place: Place, often: int = 1) -> str:
    """Look a place up."""
    looked.append((dict(place), often))
    return "rain"


class Place(BaseModel):
    """A place."""

    name: str


def _langchain(address: str) -> None:
    agent = create_agent(ChatLMStudio(model="traveler", host=address), [look])
    agent.invoke({"messages": [HumanMessage("Hi")]})


def _llama_index(address: str) -> None:
    async def run() -> None:
        llm = LMStudio(model="traveler", host=address)
        agent = FunctionAgent(tools=[FunctionTool.from_defaults(look)], llm=llm)
        await agent.run("Hi", memory=ChatMemoryBuffer.from_defaults(token_limit=1000))

    asyncio.run(run())


def _native(address: str) -> None:
    with lms.Client(address) as client:
        client.llm.model("traveler").act("Hi", [look])


@pytest.mark.parametrize("run", [_langchain, _llama_index, pytest.param(_native, marks=pytest.mark.leaf)])
def test_the_model_gets_the_schema_of_the_type_and_its_call_runs(run: Callable[[str], None]) -> None:
    looked.clear()
    with Emulator([MODEL]) as server:
        run(server.address)
        (function,) = server.predictions[0].tools
    properties = function["function"]["parameters"]["properties"]
    assert (properties["place"]["properties"]["name"]["type"], properties["often"]["type"]) == ("string", "integer")
    assert looked == [({"name": "Oslo"}, 2)]
