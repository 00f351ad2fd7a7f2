"""An agent of Strands calls a tool, on LM Studio by its OpenAI-compatible address."""

from typing import Any

import pytest
from neighbour_replies import replies
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "strands-agents",
    group="others",
    job="an `Agent` with a tool, on `OpenAIModel`",
    settings="`OpenAIModel(client_args={'base_url': 'http://HOST:1234/v1', 'api_key': 'lm-studio'}, model_id='KEY')`: "
    "our object itself fails at its first call; without a model, Strands calls Amazon Bedrock",
    weekly=True,
)


def test_it_works_by_the_openai_compatible_address(collector: Collector) -> None:
    from strands import Agent, tool
    from strands.models.openai import OpenAIModel

    @tool
    def price(pier: int) -> str:
        """Return the price of a ferry from a pier."""
        return f"{pier * 3} euros"

    collector.answer = replies({"tool": "price", "arguments": {"pier": 7}}, "It costs 21 euros.")
    address = {"base_url": f"{collector.address}/v1", "api_key": "lm-studio"}
    model = OpenAIModel(client_args=address, model_id="qwen/qwen3-4b")
    response = Agent(model=model, tools=[price], callback_handler=None)("What is the price at pier 7?")
    assert str(response).strip() == "It costs 21 euros."
    asked, told = collector.requests
    assert (asked.path, asked.json["model"], asked.json["stream"]) == ("/v1/chat/completions", "qwen/qwen3-4b", True)
    assert [each["function"]["name"] for each in asked.json["tools"]] == ["price"]
    assert told.json["messages"][-1]["role"] == "tool"


def test_our_object_fails_at_its_first_call(serve: Serve) -> None:
    from strands import Agent

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve()
    ours: Any = ChatLMStudio(model=CHAT)
    with pytest.raises(AttributeError, match="no attribute 'stateful'"):
        Agent(model=ours)("What is the price at pier 7?")
    assert server.predictions == ()
