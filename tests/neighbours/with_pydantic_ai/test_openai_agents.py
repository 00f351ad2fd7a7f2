"""The OpenAI Agents SDK calls a tool, on LM Studio by its OpenAI-compatible address, and reports to nobody."""

from typing import Any

import pytest
from neighbour_replies import replies
from neighbour_servers import CHAT, Collector

pytestmark = pytest.mark.neighbour(
    "openai-agents",
    group="others",
    job="an `Agent` with a tool, on `OpenAIChatCompletionsModel`",
    settings="`OpenAIChatCompletionsModel('KEY', AsyncOpenAI(base_url='http://HOST:1234/v1', api_key='lm-studio'))`: "
    "our object itself is rejected. With tracing on and `OPENAI_API_KEY` set, traces with the prompts go to OpenAI",
    environment={"OPENAI_AGENTS_DISABLE_TRACING": "1"},
    weekly=True,
)


async def test_it_works_by_the_openai_compatible_address(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool
    from agents.tracing import get_trace_provider
    from openai import AsyncOpenAI

    from lmstudio_integrations.langchain import ChatLMStudio

    @function_tool
    def price(pier: int) -> str:
        """Return the price of a ferry from a pier."""
        return f"{pier * 3} euros"

    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-user")
    collector.answer = replies({"tool": "price", "arguments": {"pier": 7}}, "It costs 21 euros.")
    async with AsyncOpenAI(base_url=f"{collector.address}/v1", api_key="lm-studio") as client:
        agent = Agent(name="Clerk", tools=[price], model=OpenAIChatCompletionsModel("qwen/qwen3-4b", client))
        result = await Runner.run(agent, "What is the price at pier 7?")
    get_trace_provider().shutdown()
    assert result.final_output == "It costs 21 euros."
    asked, told = collector.requests
    assert (asked.path, asked.headers["authorization"]) == ("/v1/chat/completions", "Bearer lm-studio")
    assert (asked.json["model"], told.json["messages"][-1]["content"]) == ("qwen/qwen3-4b", "21 euros")
    ours: Any = ChatLMStudio(model=CHAT)
    with pytest.raises(TypeError, match="Agent model must be a string, Model, or None"):
        Agent(name="Clerk", model=ours)
