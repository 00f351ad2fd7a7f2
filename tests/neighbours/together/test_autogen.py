"""An AutoGen agent calls a tool of LangChain, on LM Studio by its OpenAI-compatible address."""

import pytest
from neighbour_replies import replies
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "autogen-agentchat",
    "autogen-ext",
    group="others",
    job="an `AssistantAgent` with `LangChainToolAdapter`, on `OpenAIChatCompletionClient`",
    settings="`OpenAIChatCompletionClient(model='KEY', base_url='http://HOST:1234/v1', api_key='lm-studio', "
    "model_info={…})`: our object itself fails at its first run",
    weekly=True,
)


async def test_it_works_by_the_openai_compatible_address(collector: Collector) -> None:
    from autogen_agentchat.agents import AssistantAgent
    from autogen_core.models import ModelInfo
    from autogen_ext.models.openai import OpenAIChatCompletionClient
    from autogen_ext.tools.langchain import LangChainToolAdapter
    from langchain_core.tools import tool

    @tool
    def price(pier: int) -> str:
        """Return the price of a ferry from a pier."""
        return f"{pier * 3} euros"

    collector.answer = replies({"tool": "price", "arguments": {"pier": 7}}, "It costs 21 euros.")
    client = OpenAIChatCompletionClient(
        model="qwen/qwen3-4b",
        base_url=f"{collector.address}/v1",
        api_key="lm-studio",
        model_info=ModelInfo(
            vision=False, function_calling=True, json_output=True, structured_output=True, family="unknown"
        ),
    )
    agent = AssistantAgent("clerk", client, tools=[LangChainToolAdapter(price)], reflect_on_tool_use=True)
    result = await agent.run(task="What is the price at pier 7?")
    await client.close()
    assert result.messages[-1].to_text() == "It costs 21 euros."
    asked, told = collector.requests
    assert (asked.path, asked.json["model"]) == ("/v1/chat/completions", "qwen/qwen3-4b")
    assert [each["function"]["name"] for each in asked.json["tools"]] == ["price"]
    assert told.json["messages"][-1]["content"] == "21 euros"


async def test_our_object_fails_at_its_first_run(serve: Serve) -> None:
    from typing import Any

    from autogen_agentchat.agents import AssistantAgent

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve()
    ours: Any = ChatLMStudio(model=CHAT)
    with pytest.raises(AttributeError, match="no attribute 'model_info'"):
        await AssistantAgent("clerk", ours).run(task="What is the price at pier 7?")
    assert server.predictions == ()
