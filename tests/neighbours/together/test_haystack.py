"""Haystack answers on LM Studio, by a component around ours and by its OpenAI-compatible address."""

from typing import Any

import pytest
from neighbour_replies import replies
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "haystack-ai",
    group="others",
    job="a pipeline with a component of ten lines around `ChatLMStudio`; an agent with tools on `OpenAIChatGenerator`",
    settings="`OpenAIChatGenerator(model='KEY', api_base_url='http://HOST:1234/v1', "
    "api_key=Secret.from_token('lm-studio'))`, or the component: our object itself is rejected",
    environment={"HAYSTACK_TELEMETRY_ENABLED": "False"},
    weekly=True,
)


def test_it_works_by_a_component_around_ours(serve: Serve) -> None:
    from haystack import Pipeline, component
    from haystack.components.builders import ChatPromptBuilder
    from haystack.dataclasses import ChatMessage
    from langchain_core.messages import convert_to_messages

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve({"then": "At pier 7."})

    @component
    class ChatOnLMStudio:
        def __init__(self, chat: ChatLMStudio) -> None:
            self.chat = chat

        @component.output_types(replies=list[ChatMessage])
        def run(self, messages: list[ChatMessage]) -> dict[str, Any]:
            given = convert_to_messages([each.to_openai_dict_format() for each in messages])
            response = self.chat.invoke(given)
            return {"replies": [ChatMessage.from_assistant(response.text, meta=response.response_metadata)]}

    template = [ChatMessage.from_system("Be brief."), ChatMessage.from_user("Where do {{ what }} leave?")]
    pipeline = Pipeline()
    pipeline.add_component("prompt", ChatPromptBuilder(template))
    pipeline.add_component("chat", ChatOnLMStudio(ChatLMStudio(model=CHAT)))
    pipeline.connect("prompt.prompt", "chat.messages")
    (reply,) = pipeline.run({"prompt": {"what": "ferries"}})["chat"]["replies"]
    assert (reply.text, reply.meta["model_name"]) == ("At pier 7.", CHAT)
    (prediction,) = server.predictions
    assert [each["content"] for each in prediction.messages] == ["Be brief.", "Where do ferries leave?"]


def test_it_works_by_the_openai_compatible_address(collector: Collector) -> None:
    from haystack.components.agents import Agent
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage
    from haystack.tools import tool
    from haystack.utils import Secret

    from lmstudio_integrations.langchain import ChatLMStudio

    @tool
    def price(pier: int) -> str:
        """Return the price of a ferry from a pier."""
        return f"{pier * 3} euros"

    collector.answer = replies({"tool": "price", "arguments": {"pier": 7}}, "It costs 21 euros.")
    generator = OpenAIChatGenerator(
        model="qwen/qwen3-4b", api_base_url=f"{collector.address}/v1", api_key=Secret.from_token("lm-studio")
    )
    answer = Agent(chat_generator=generator, tools=[price]).run([ChatMessage.from_user("What is the price?")])
    assert answer["last_message"].text == "It costs 21 euros."
    asked, told = collector.requests
    assert (asked.path, asked.json["model"]) == ("/v1/chat/completions", "qwen/qwen3-4b")
    assert [each["function"]["name"] for each in asked.json["tools"]] == ["price"]
    assert told.json["messages"][-1]["content"] == "21 euros"
    with pytest.raises(AttributeError, match="no attribute 'run'"):
        Agent(chat_generator=ChatLMStudio(model=CHAT))
