"""A graph whose model calls a tool, is interrupted for approval, and goes on."""

from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "langgraph", group="agents", job="a graph calls a tool, waits for approval, and goes on"
)


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_a_graph_waits_for_approval(serve: Serve, answer: str) -> None:
    from langchain_core.messages import AnyMessage, HumanMessage
    from langchain_core.tools import tool
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition
    from langgraph.types import Command, interrupt

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"role": "tool"}, "then": "It said: {last}"},
        {"then": [{"tool": "book", "arguments": {"pier": 7}}]},
    )

    @tool
    def book(pier: int) -> str:
        """Book a ferry."""
        return f"booked at {pier}" if interrupt({"pier": pier}) == "yes" else "not booked"

    model = ChatLMStudio(model=CHAT).bind_tools([book])

    def call(state: MessagesState) -> dict[str, list[AnyMessage]]:
        return {"messages": [model.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("call", call)
    builder.add_node("tools", ToolNode([book]))
    builder.add_edge(START, "call")
    builder.add_conditional_edges("call", tools_condition)
    builder.add_edge("tools", "call")
    graph = builder.compile(checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    paused = graph.invoke({"messages": [HumanMessage("Book a ferry.")]}, thread)
    assert paused["__interrupt__"][0].value == {"pier": 7}
    ended = graph.invoke(Command(resume=answer), thread)
    assert ended["messages"][-1].text == f"It said: {'booked at 7' if answer == 'yes' else 'not booked'}"
    asked, told = server.predictions
    assert [each["function"]["name"] for each in asked.tools] == ["book"]
    assert [each["role"] for each in told.messages] == ["user", "assistant", "tool"]
