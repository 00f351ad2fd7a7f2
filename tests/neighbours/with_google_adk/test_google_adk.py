"""Google's ADK runs a graph on ours, and its own agent on LM Studio by its OpenAI-compatible address."""

from typing import Any

import pytest
from neighbour_replies import replies
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "google-adk",
    "litellm",
    "langchain",
    group="others",
    job="a `LangGraphAgent` whose graph has `ChatLMStudio`; an `LlmAgent` with a tool on `LiteLlm`",
    settings="`LiteLlm('lm_studio/KEY', api_base='http://HOST:1234/v1')`: our object itself is rejected, and "
    "`lm_studio/…` without an address goes to OpenAI, see litellm",
    environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    weekly=True,
)


async def _answer(agent: Any, question: str) -> str:
    from google.adk.runners import InMemoryRunner
    from google.genai.types import Content, Part

    runner = InMemoryRunner(agent=agent, app_name="app")
    session = await runner.session_service.create_session(app_name="app", user_id="user")
    asked = Content(role="user", parts=[Part(text=question)])
    events: Any = [event async for event in runner.run_async(user_id="user", session_id=session.id, new_message=asked)]
    return events[-1].content.parts[0].text


async def test_a_graph_with_ours_runs_as_an_agent(serve: Serve) -> None:
    from google.adk.agents import LlmAgent
    from google.adk.agents.langgraph_agent import LangGraphAgent
    from langchain.agents import create_agent
    from pydantic import ValidationError

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve({"then": "At pier 7."})
    model: Any = ChatLMStudio(model=CHAT)
    agent = LangGraphAgent(name="clerk", instruction="Be brief.", graph=create_agent(model))
    assert await _answer(agent, "Where do ferries leave?") == "At pier 7."
    (prediction,) = server.predictions
    assert [each["content"] for each in prediction.messages] == ["Be brief.", "Where do ferries leave?"]
    with pytest.raises(ValidationError, match="instance of BaseLlm"):
        LlmAgent(name="clerk", model=model)


async def test_it_works_by_the_openai_compatible_address(collector: Collector) -> None:
    from google.adk.agents import LlmAgent
    from google.adk.models.lite_llm import LiteLlm

    def price(pier: int) -> str:
        """Return the price of a ferry from a pier."""
        return f"{pier * 3} euros"

    collector.answer = replies({"tool": "price", "arguments": {"pier": 7}}, "It costs 21 euros.")
    model = LiteLlm("lm_studio/qwen/qwen3-4b", api_base=f"{collector.address}/v1")
    agent = LlmAgent(name="clerk", model=model, tools=[price])
    assert await _answer(agent, "What is the price at pier 7?") == "It costs 21 euros."
    asked, told = collector.requests
    assert (asked.path, asked.json["model"]) == ("/v1/chat/completions", "qwen/qwen3-4b")
    assert [each["function"]["name"] for each in asked.json["tools"]] == ["price"]
    assert "21 euros" in told.json["messages"][-1]["content"]
