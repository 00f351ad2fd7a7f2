"""A supervisor hands a question to a research agent, then a sum to a math agent, and answers."""

from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "langgraph-supervisor", group="agents", job="a supervisor hands work to two agents in turn, and answers"
)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_supervisor_hands_work_to_its_agents(serve: Serve, asynchronous: bool) -> None:
    from langchain.agents import create_agent
    from langgraph_supervisor import create_supervisor

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {
            "when": {"tools": ["transfer_to_math_expert"], "last": "combined headcount"},
            "then": [{"tool": "transfer_to_research_expert"}],
        },
        {
            "when": {"tools": ["web_search"], "last": "transferred to"},
            "then": [{"tool": "web_search", "arguments": {"query": "headcounts"}}],
        },
        {"when": {"tools": ["web_search"], "role": "tool"}, "then": "Meta 67, Apple 164."},
        {
            "when": {"tools": ["transfer_to_math_expert"], "last": "back to supervisor", "times": 1},
            "then": [{"tool": "transfer_to_math_expert"}],
        },
        {
            "when": {"tools": ["add"], "last": "transferred to"},
            "then": [{"tool": "add", "arguments": {"a": 67, "b": 164}}],
        },
        {"when": {"tools": ["add"], "role": "tool"}, "then": "The sum is {last}."},
        {"then": "Together: 231."},
    )

    def add(a: float, b: float) -> float:
        """Add two numbers."""
        return a + b

    def web_search(query: str) -> str:
        """Search the web for information."""
        return "Meta: 67. Apple: 164."

    model = ChatLMStudio(model=CHAT)
    math = create_agent(model, [add], name="math_expert", system_prompt="You are a math expert.")
    research = create_agent(model, [web_search], name="research_expert", system_prompt="You search.")
    team = create_supervisor([research, math], model=model, prompt="You manage two experts.").compile()
    question: Any = {"messages": [{"role": "user", "content": "What is the combined headcount?"}]}
    messages = (await team.ainvoke(question) if asynchronous else team.invoke(question))["messages"]
    said = [(each.name, each.text) for each in messages if each.type == "ai" and each.text]
    assert said == [
        ("research_expert", "Meta 67, Apple 164."),
        ("research_expert", "Transferring back to supervisor"),
        ("math_expert", "The sum is 231.0."),
        ("math_expert", "Transferring back to supervisor"),
        ("supervisor", "Together: 231."),
    ]
    offered = [{each["function"]["name"] for each in one.tools} for one in server.predictions]
    handoffs = {"transfer_to_research_expert", "transfer_to_math_expert"}
    assert offered == [handoffs, {"web_search"}, {"web_search"}, handoffs, {"add"}, {"add"}, handoffs]
    manage, search, calculate = "You manage two experts.", "You search.", "You are a math expert."
    systems = [one.messages[0]["content"] for one in server.predictions]
    assert systems == [manage, search, search, manage, calculate, calculate, manage]
