"""A judge criticizes an answer, the agent corrects it, and the judge approves."""

from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "langgraph-reflection",
    group="agents",
    job="a judge criticizes the answer of an agent, until it approves",
    settings="`create_reflection_graph(…, state_schema=MessagesState)`: the default needs an older LangGraph",
    weekly=True,
)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_answer_is_corrected(serve: Serve, asynchronous: bool) -> None:
    from langchain.agents import create_agent
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph_reflection import create_reflection_graph
    from pydantic import BaseModel

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"tools": ["Finish"], "last": "Oslo"}, "then": [{"tool": "Finish", "arguments": {"finish": True}}]},
        {"when": {"tools": ["Finish"]}, "then": "Name the city."},
        {"when": {"last": "Name the city"}, "then": "The capital of Norway is Oslo."},
        {"then": "It is in the south."},
    )

    class Finish(BaseModel):
        """Approve the answer."""

        finish: bool

    model = ChatLMStudio(model=CHAT)
    judge = model.bind_tools([Finish])

    def judged(response: Any) -> dict[str, Any] | None:
        if response.tool_calls:
            return None
        return {"messages": [{"role": "user", "content": response.text}]}

    async def critique(state: MessagesState) -> dict[str, Any] | None:
        return judged(await judge.ainvoke([("user", state["messages"][-1].text)]))

    def critique_now(state: MessagesState) -> dict[str, Any] | None:
        return judged(judge.invoke([("user", state["messages"][-1].text)]))

    reflection = StateGraph(MessagesState)
    reflection.add_node("critique", critique if asynchronous else critique_now)
    reflection.add_edge(START, "critique")
    graph: Any = create_reflection_graph(
        create_agent(model), reflection.compile(), state_schema=MessagesState
    ).compile()
    asked: Any = {"messages": [{"role": "user", "content": "What is the capital of Norway?"}]}
    ended = await graph.ainvoke(asked) if asynchronous else graph.invoke(asked)
    assert [each.text for each in ended["messages"]] == [
        "What is the capital of Norway?",
        "It is in the south.",
        "Name the city.",
        "The capital of Norway is Oslo.",
    ]
    assert [len(one.tools) for one in server.predictions] == [0, 1, 0, 1]
    assert [each["role"] for each in server.predictions[2].messages] == ["user", "assistant", "user"]
