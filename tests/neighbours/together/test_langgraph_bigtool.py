"""An agent searches the functions of `math` by meaning, calls the one that it found, and answers."""

import math
import types
from typing import Any

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "langgraph-bigtool",
    group="agents",
    job="an agent finds a tool among all functions of `math`, and calls it",
    settings=(
        "`ToolNode.inject_tool_args = lambda self, call, state, store: call`: "
        "it calls a method that LangGraph 1 renamed, whatever the model"
    ),
    weekly=True,
)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_agent_finds_its_tool(serve: Serve, monkeypatch: pytest.MonkeyPatch, asynchronous: bool) -> None:
    from langchain_core.tools import BaseTool
    from langgraph.prebuilt import ToolNode
    from langgraph.store.memory import InMemoryStore
    from langgraph_bigtool import create_agent
    from langgraph_bigtool.utils import convert_positional_only_function_to_tool

    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

    assert not hasattr(ToolNode, "inject_tool_args")
    monkeypatch.setattr(ToolNode, "inject_tool_args", lambda self, call, state, store: call, raising=False)
    server = serve(
        {"when": {"last": "1.047"}, "then": "It is {last}."},
        {"when": {"tools": ["acos"], "role": "tool"}, "then": [{"tool": "acos", "arguments": {"x": 0.5}}]},
        {"then": [{"tool": "retrieve_tools", "arguments": {"query": "arc cosine"}}]},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    functions = [each for each in vars(math).values() if isinstance(each, types.BuiltinFunctionType)]
    tools: list[BaseTool] = [made for each in functions if (made := convert_positional_only_function_to_tool(each))]
    registry = {tool.name: tool for tool in tools}
    store = InMemoryStore(
        index={"embed": LMStudioEmbeddings(model=REAL_EMBEDDING), "dims": 384, "fields": ["description"]}
    )
    for name, tool in registry.items():
        store.put(("tools",), name, {"description": f"{tool.name}: {tool.description}"})
    agent: Any = create_agent(ChatLMStudio(model=CHAT), registry).compile(store=store)
    question: Any = {"messages": "Use available tools to calculate arc cosine of 0.5."}
    messages = (await agent.ainvoke(question) if asynchronous else agent.invoke(question))["messages"]
    calls = [(call["name"], call["args"]) for each in messages if each.type == "ai" for call in each.tool_calls]
    assert calls == [("retrieve_tools", {"query": "arc cosine"}), ("acos", {"x": 0.5})]
    assert messages[-1].text == f"It is {math.acos(0.5)}."
    offered = [{each["function"]["name"] for each in one.tools} for one in server.predictions]
    assert offered == [{"retrieve_tools"}, {"retrieve_tools", "acos", "cos"}, {"retrieve_tools", "acos", "cos"}]
    texts = [each.text for each in server.embedded_texts]
    assert {each.partition(":")[0] for each in texts[:-1]} == set(registry)
    assert (len(texts), texts[-1]) == (len(registry) + 1, "arc cosine")
