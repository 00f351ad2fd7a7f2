"""Agno runs a graph on ours, and its own agent on LM Studio by its OpenAI-compatible address."""

from typing import Any

import pytest
from neighbour_replies import replies
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "agno",
    group="others",
    job="a `LangGraphAgent` whose graph has `ChatLMStudio`; an `Agent` with tools on Agno's own `LMStudio`",
    settings="`agno.models.lmstudio.LMStudio(id='KEY', base_url='http://HOST:1234/v1')`: our object itself is rejected",
    environment={"AGNO_TELEMETRY": "false"},
    weekly=True,
)


def test_a_graph_with_ours_runs_as_an_agent(serve: Serve) -> None:
    from agno.agent import Agent
    from agno.agents.langgraph import LangGraphAgent
    from langchain.agents import create_agent

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve({"then": "At pier 7."})
    model: Any = ChatLMStudio(model=CHAT)
    agent: Any = LangGraphAgent(name="Clerk", graph=create_agent(model, system_prompt="Be brief."))
    assert agent.run("Where do ferries leave?").content == "At pier 7."
    (prediction,) = server.predictions
    assert [each["content"] for each in prediction.messages] == ["Be brief.", "Where do ferries leave?"]
    with pytest.raises(ValueError, match="Model must be a Model instance, string, or None"):
        Agent(model=model)


def test_it_works_by_the_openai_compatible_address(collector: Collector) -> None:
    from agno.agent import Agent
    from agno.models.lmstudio import LMStudio

    def price(pier: int) -> str:
        """Return the price of a ferry from a pier."""
        return f"{pier * 3} euros"

    collector.answer = replies({"tool": "price", "arguments": {"pier": 7}}, "It costs 21 euros.")
    assert LMStudio().base_url == "http://127.0.0.1:1234/v1"
    model = LMStudio(id="qwen/qwen3-4b", base_url=f"{collector.address}/v1")
    response = Agent(model=model, tools=[price], telemetry=False).run("What is the price at pier 7?")
    assert response.content == "It costs 21 euros."
    asked, told = collector.requests
    assert (asked.path, asked.json["model"]) == ("/v1/chat/completions", "qwen/qwen3-4b")
    assert told.json["messages"][-1]["content"] == "21 euros"
