"""A crew works on LM Studio, by its OpenAI-compatible address and by a class around ours; our object it takes apart."""

import json
from typing import Any

import pytest
from neighbour_replies import replies
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "crewai",
    group="others",
    job="a crew calls a tool and answers, on `LLM` or on a class of ten lines around `ChatLMStudio`",
    settings="`LLM('KEY', custom_openai=True, base_url='http://HOST:1234/v1', api_key='lm-studio')`; never pass our "
    "object. `Agent` and `Crew` reject it since 1.11.1; `LiteAgent` and `create_llm` make a client of OpenAI with its "
    "name and `base_url`. Without `custom_openai`, the name selects a provider, whatever "
    "`base_url` says: `gemma-…` and `google/…` go to Google",
    environment={
        "CREWAI_DISABLE_TELEMETRY": "true",
        "CREWAI_DISABLE_TRACKING": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OTEL_SDK_DISABLED": "true",
    },
)

ROLE = {"role": "Clerk", "goal": "Answer.", "backstory": "You work at the pier."}


def _crew(llm: Any) -> Any:
    from crewai import Agent, Crew, Task
    from crewai.tools import tool

    @tool("price")
    def price(pier: int) -> str:
        """Return the price of a ferry from a pier."""
        return f"{pier * 3} euros"

    agent = Agent(**ROLE, llm=llm, tools=[price])
    task = Task(description="What is the price at pier 7?", expected_output="The price.", agent=agent)
    return Crew(agents=[agent], tasks=[task])


def test_it_works_by_the_openai_compatible_address(collector: Collector) -> None:
    from crewai import LLM

    collector.answer = replies({"tool": "price", "arguments": {"pier": 7}}, "It costs 21 euros.")
    key = "google/gemma-3-4b"  # names a provider of CrewAI
    llm = LLM(model=key, custom_openai=True, base_url=f"{collector.address}/v1", api_key="lm-studio")
    assert _crew(llm).kickoff().raw == "It costs 21 euros."
    asked, told = collector.requests
    assert [(each.path, each.headers["authorization"]) for each in (asked, told)] == [
        ("/v1/chat/completions", "Bearer lm-studio")
    ] * 2
    assert [each["function"]["name"] for each in asked.json["tools"]] == ["price"]
    assert (asked.json["model"], told.json["messages"][-1]["content"]) == (key, "21 euros")


def test_it_works_by_a_class_around_ours(serve: Serve) -> None:
    from crewai import BaseLLM
    from langchain_core.messages import convert_to_messages

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"role": "tool"}, "then": "It costs {last}."},
        {"then": [{"tool": "price", "arguments": {"pier": 7}}]},
    )

    class OnLMStudio(BaseLLM):
        chat: ChatLMStudio

        def call(self, messages: Any, tools: Any = None, *_: Any, **__: Any) -> Any:
            given = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
            response = self.chat.invoke(convert_to_messages(given), tools=tools or None, stop=self.stop or None)
            return [
                {"id": call["id"], "function": {"name": call["name"], "arguments": json.dumps(call["args"])}}
                for call in response.tool_calls
            ] or response.text

        def supports_function_calling(self) -> bool:
            return True

        def get_context_window_size(self) -> int:
            return self.chat.load().profile["max_input_tokens"]

    assert _crew(OnLMStudio(model=CHAT, chat=ChatLMStudio(model=CHAT))).kickoff().raw == "It costs 21 euros."
    asked, told = server.predictions
    assert [each["function"]["name"] for each in asked.tools] == ["price"]
    assert [each["role"] for each in told.messages] == ["system", "user", "assistant", "tool"]


def test_our_object_is_rejected_or_taken_apart(
    serve: Serve, outward: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from crewai import Agent, Crew
    from crewai.lite_agent import LiteAgent
    from pydantic import ValidationError

    from lmstudio_integrations.langchain import ChatLMStudio
    from lmstudio_integrations.llama_index import LMStudio

    server = serve()
    address = f"http://{server.address}/v1"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-user")
    for ours in (ChatLMStudio(model=CHAT), LMStudio(model=CHAT)):
        with pytest.raises(ValidationError, match="instance of BaseLLM"):
            Agent(**ROLE, llm=ours)
        with pytest.raises(ValidationError, match="instance of BaseLLM"):
            Crew(manager_llm=ours)
        agent = LiteAgent(**ROLE, llm=ours)
        assert (type(agent.llm).__name__, agent.llm.model, agent.llm.base_url) == ("OpenAICompletion", CHAT, address)
        with pytest.raises(Exception, match="returned HTTP 200 with no choices"):  # by the emulator
            agent.kickoff("What must not leave this machine?")
    assert (outward, server.predictions) == ([], ())


def test_without_custom_openai_a_name_selects_another_provider(
    collector: Collector, outward: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from crewai import LLM

    monkeypatch.setenv("GEMINI_API_KEY", "key-of-the-user")
    llm = LLM(model="google/gemma-3-4b", base_url=f"{collector.address}/v1", api_key="lm-studio")
    with pytest.raises(Exception, match="googleapis"):
        llm.call("What must not leave this machine?")
    assert set(outward) == {"socket.getaddrinfo generativelanguage.googleapis.com"}
    outward.clear()
    assert collector.requests == []
