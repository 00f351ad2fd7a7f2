"""An agent notes and finds memories by its tools, and a manager takes memories out of conversations."""

import json
from typing import Any

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "langmem", group="agents", job="an agent notes and finds memories, and a manager takes them out of conversations"
)

MODELS = [f"{REAL_EMBEDDING}={REAL_EMBEDDING}"]


def _store() -> Any:
    from langgraph.store.memory import InMemoryStore

    from lmstudio_integrations.langchain import LMStudioEmbeddings

    return InMemoryStore(index={"embed": LMStudioEmbeddings(model=REAL_EMBEDDING), "dims": 384})


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_agent_remembers(serve: Serve, asynchronous: bool) -> None:
    from langchain.agents import create_agent
    from langmem import create_manage_memory_tool, create_search_memory_tool

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"last": "^I "}, "then": [{"tool": "manage_memory", "arguments": {"content": "{last}"}}]},
        {"when": {"last": "created memory"}, "then": "Noted."},
        {"when": {"role": "user"}, "then": [{"tool": "search_memory", "arguments": {"query": "{last}", "limit": 1}}]},
        {"when": {"role": "tool"}, "then": "{last}"},
        models=MODELS,
    )
    tools = [create_manage_memory_tool(namespace=("memories",)), create_search_memory_tool(namespace=("memories",))]
    agent = create_agent(ChatLMStudio(model=CHAT), tools, store=_store())

    async def say(text: str) -> str:
        said: Any = {"messages": [{"role": "user", "content": text}]}
        state = await agent.ainvoke(said) if asynchronous else agent.invoke(said)
        return state["messages"][-1].text

    preferences = ("I prefer dark mode.", "I have a red boat.")
    for text in preferences:
        assert await say(text) == "Noted."
    question = "What are my lighting preferences?"
    (found,) = json.loads(await say(question))
    assert found["value"] == {"content": preferences[0]}
    offered = [[each["function"]["name"] for each in one.tools] for one in server.predictions]
    assert offered == [["manage_memory", "search_memory"]] * 6
    assert [each.text for each in server.embedded_texts] == [
        *(json.dumps({"content": text}) for text in preferences),
        question,
    ]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_manager_reads_conversations(serve: Serve, asynchronous: bool) -> None:
    from langmem import create_memory_store_manager

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"last": "dark"}, "then": [{"tool": "Memory", "arguments": {"content": "Prefers dark mode."}}]},
        {"when": {"last": "boat"}, "then": [{"tool": "Memory", "arguments": {"content": "Has a red boat."}}]},
        models=MODELS,
    )
    store = _store()
    manager = create_memory_store_manager(ChatLMStudio(model=CHAT), namespace=("memories",), store=store)
    for text in ("I like it dark.", "My boat is red."):
        said: Any = {"messages": [{"role": "user", "content": text}]}
        await manager.ainvoke(said) if asynchronous else manager.invoke(said)
    (found,) = store.search(("memories",), query="lighting", limit=1)
    assert found.value == {"kind": "Memory", "content": {"content": "Prefers dark mode."}}
    first, second = server.predictions
    assert [each["function"]["name"] for each in first.tools] == ["Memory"]
    assert [each["function"]["name"] for each in second.tools] == ["PatchDoc", "Memory"]
    assert (first.tool_choice, second.tool_choice) == ("auto", "required")
    assert "Prefers dark mode." in second.messages[0]["content"]
