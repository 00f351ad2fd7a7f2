"""An agent waits for approval in a database, and goes on in another connection."""

from pathlib import Path
from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "langgraph-checkpoint-sqlite",
    group="agents",
    job="an agent waits for approval in a database, and goes on in another connection",
    environment={"LANGGRAPH_STRICT_MSGPACK": "true"},
)


def _agent(checkpointer: Any) -> Any:
    from langchain.agents import create_agent
    from langchain.agents.middleware import HumanInTheLoopMiddleware

    from lmstudio_integrations.langchain import ChatLMStudio

    def book(pier: int) -> str:
        """Book a ferry."""
        return f"booked at {pier}"

    approval = HumanInTheLoopMiddleware(interrupt_on={"book": True})
    return create_agent(ChatLMStudio(model=CHAT), [book], middleware=[approval], checkpointer=checkpointer)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_conversation_goes_on_in_another_connection(serve: Serve, tmp_path: Path, asynchronous: bool) -> None:
    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    from langgraph.types import Command

    server = serve(
        {"when": {"role": "tool"}, "then": [{"reasoning": "It worked."}, {"text": "It said: {last}"}]},
        {"when": {"last": "Book"}, "then": [{"tool": "book", "arguments": {"pier": 7}}]},
        {"then": "You asked: {last}"},
    )
    file = str(tmp_path / "checkpoints.sqlite")
    thread: Any = {"configurable": {"thread_id": "1"}}

    async def run(value: Any) -> dict[str, Any]:
        """Run the agent, in a connection of its own."""
        if asynchronous:
            async with AsyncSqliteSaver.from_conn_string(file) as saver:
                return await _agent(saver).ainvoke(value, thread)
        with SqliteSaver.from_conn_string(file) as saver:
            return _agent(saver).invoke(value, thread)

    paused = await run({"messages": [{"role": "user", "content": "Book a ferry."}]})
    (request,) = paused["__interrupt__"][0].value["action_requests"]
    assert (request["name"], request["args"]) == ("book", {"pier": 7})
    ended = await run(Command(resume={"decisions": [{"type": "approve"}]}))
    asked = await run({"messages": [{"role": "user", "content": "Where from?"}]})
    assert [each.text for each in asked["messages"]] == [
        "Book a ferry.",
        "",
        "booked at 7",
        "It said: booked at 7",
        "Where from?",
        "You asked: Where from?",
    ]
    assert asked["messages"][:4] == ended["messages"]
    told = asked["messages"][3]
    stats, usage = server.predictions[1].stats, told.usage_metadata
    assert usage["input_tokens"] == stats["promptTokensCount"]
    assert usage["output_tokens"] == stats["predictedTokensCount"]
    assert told.response_metadata["finish_reason"] == "stop"
    assert [block["type"] for block in told.content_blocks] == ["reasoning", "text"]
    assert [len(each.messages) for each in server.predictions] == [1, 3, 5]
