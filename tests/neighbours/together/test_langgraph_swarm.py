"""A swarm of two agents hands a conversation over, and remembers in the next turn who answers."""

from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "langgraph-swarm",
    group="agents",
    job="two agents hand a conversation to each other, and the next turn begins with the last one",
)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_swarm_hands_a_conversation_over(serve: Serve, asynchronous: bool) -> None:
    from langchain.agents import create_agent
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph_swarm import create_handoff_tool, create_swarm

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"tools": ["transfer_to_bob"], "last": "speak to Bob"}, "then": [{"tool": "transfer_to_bob"}]},
        {"when": {"tools": ["transfer_to_alice"], "last": "5 \\+ 7"}, "then": [{"tool": "transfer_to_alice"}]},
        {
            "when": {"tools": ["add"], "last": "transferred to Alice"},
            "then": [{"tool": "add", "arguments": {"a": 5, "b": 7}}],
        },
        {"when": {"tools": ["add"], "role": "tool"}, "then": "It is {last}."},
        {"when": {"tools": ["transfer_to_alice"], "role": "tool"}, "then": "Arr, I am Bob."},
    )

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    model = ChatLMStudio(model=CHAT)
    to_bob = create_handoff_tool(agent_name="Bob", description="Transfer to Bob")
    to_alice = create_handoff_tool(agent_name="Alice", description="Transfer to Alice, she can help with math")
    alice = create_agent(model, [add, to_bob], system_prompt="You are Alice.", name="Alice")
    bob = create_agent(model, [to_alice], system_prompt="You are Bob.", name="Bob")
    app = create_swarm([alice, bob], default_active_agent="Alice").compile(checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}

    async def turn(text: str) -> dict[str, Any]:
        said: Any = {"messages": [{"role": "user", "content": text}]}
        return await app.ainvoke(said, thread) if asynchronous else app.invoke(said, thread)

    first = await turn("I'd like to speak to Bob.")
    assert (first["active_agent"], first["messages"][-1].text) == ("Bob", "Arr, I am Bob.")
    second = await turn("What is 5 + 7?")
    assert (second["active_agent"], second["messages"][-1].text) == ("Alice", "It is 12.")
    offered = [[each["function"]["name"] for each in one.tools] for one in server.predictions]
    alice_tools, bob_tools = ["add", "transfer_to_bob"], ["transfer_to_alice"]
    assert offered == [alice_tools, bob_tools, bob_tools, alice_tools, alice_tools]
    systems = [one.messages[0]["content"] for one in server.predictions]
    assert systems == [f"You are {name}." for name in ("Alice", "Bob", "Bob", "Alice", "Alice")]
