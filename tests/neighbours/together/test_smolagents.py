"""smolagents calls a tool of LangChain on LM Studio, by a class around ours and by its OpenAI-compatible address."""

import json
from typing import Any

import pytest
from neighbour_replies import replies
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "smolagents",
    group="others",
    job="a `ToolCallingAgent` with `Tool.from_langchain`, on a `Model` around ours and on `OpenAIServerModel`",
    settings="`OpenAIServerModel('KEY', api_base='http://HOST:1234/v1', api_key='lm-studio')`, or the class: our "
    "object itself fails at its first step",
)


def _tool() -> Any:
    from langchain_core.tools import tool
    from smolagents import Tool

    @tool
    def price(pier: int) -> str:
        """Return the price of a ferry from a pier."""
        return f"{pier * 3} euros"

    return Tool.from_langchain(price)


CALLS = [("price", {"pier": 7}), ("final_answer", {"answer": "It costs 21 euros."})]


def test_it_works_by_a_class_around_ours(serve: Serve) -> None:
    from langchain_core.messages import convert_to_messages
    from smolagents import ChatMessage, Model, ToolCallingAgent

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        *({"when": {"times": 1}, "then": [{"tool": name, "arguments": arguments}]} for name, arguments in CALLS)
    )

    class OnLMStudio(Model):
        def __init__(self, chat: ChatLMStudio) -> None:
            super().__init__(model_id=chat.model, flatten_messages_as_text=True)
            self.chat = chat

        def generate(self, *arguments: Any, **named: Any) -> ChatMessage:
            request = self._prepare_completion_kwargs(*arguments, **named)
            response = self.chat.invoke(convert_to_messages(request.pop("messages")), **request)
            calls = [
                {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["args"]}}
                for call in response.tool_calls
            ]
            return ChatMessage.from_dict({"role": "assistant", "content": response.text, "tool_calls": calls or None})

    agent = ToolCallingAgent(tools=[_tool()], model=OnLMStudio(ChatLMStudio(model=CHAT)), verbosity_level=0)
    assert agent.run("What is the price at pier 7?") == "It costs 21 euros."
    asked, told = server.predictions
    assert [each["function"]["name"] for each in asked.tools] == ["price", "final_answer"]
    assert (asked.tool_choice, asked.config["stopStrings"]) == ("required", ["Observation:", "Calling tools:"])
    assert "21 euros" in json.dumps(told.messages)
    agent = ToolCallingAgent(tools=[], model=ChatLMStudio(model=CHAT), verbosity_level=-1)
    with pytest.raises(Exception, match="'ChatMessage' object is not iterable"):
        agent.run("What is the price at pier 7?")


def test_it_works_by_the_openai_compatible_address(collector: Collector) -> None:
    from smolagents import OpenAIServerModel, ToolCallingAgent

    collector.answer = replies(*({"tool": name, "arguments": arguments} for name, arguments in CALLS))
    model = OpenAIServerModel("qwen/qwen3-4b", api_base=f"{collector.address}/v1", api_key="lm-studio")
    agent = ToolCallingAgent(tools=[_tool()], model=model, verbosity_level=0)
    assert agent.run("What is the price at pier 7?") == "It costs 21 euros."
    assert [(each.path, each.json["model"]) for each in collector.requests] == [
        ("/v1/chat/completions", "qwen/qwen3-4b")
    ] * 2
