"""The models that `serve` offers without flags, as agents use them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import HumanMessage
from llama_index.core.agent.workflow import FunctionAgent
from pydantic import BaseModel

from lmstudio_integrations.cli._serve import scripted_entries
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.ways import AGENT_WARNINGS
from tests.support.served import served


class Report(BaseModel):
    """The weather."""

    city: str
    degrees: int


default_server = served(scripted_entries())


def look(city: str) -> str:
    """Look out of the window."""
    return f"It snows in {city}."


def answered_by_langchain(host: str, response_format: Any) -> Any:
    agent: Any = create_agent(ChatLMStudio(model="scripted-tools", host=host), [look], response_format=response_format)
    return agent.invoke({"messages": [HumanMessage("Does it snow in Oslo?")]})["structured_response"]


def answered_by_llama_index(host: str, output_cls: type[BaseModel]) -> Any:
    async def answer() -> Any:
        llm = LMStudio(model="scripted-tools", host=host)
        result: Any = await FunctionAgent(tools=[look], llm=llm, output_cls=output_cls).run("Does it snow in Oslo?")
        return result.get_pydantic_model(output_cls)

    return asyncio.run(answer())


@AGENT_WARNINGS
@pytest.mark.parametrize(
    ("answered", "response_format"),
    [
        (answered_by_langchain, Report),
        (answered_by_langchain, ToolStrategy(Report)),
        (answered_by_llama_index, Report),
    ],
    ids=["LangChain", "LangChain, as a tool", "LlamaIndex"],
)
def test_an_agent_on_the_default_server_calls_its_tool_and_fills_a_schema(
    default_server: Emulator, answered: Callable[[str, Any], Any], response_format: Any
) -> None:
    before = len(default_server.predictions)
    assert answered(default_server.address, response_format) == Report(city="", degrees=0)
    (call,) = default_server.predictions[before].tool_calls
    assert (call["name"], call["arguments"]) == ("look", {"city": "Oslo"})
