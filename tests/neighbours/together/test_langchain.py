"""An agent of `create_agent` plans, waits for approval, is limited, summarizes, and returns an object."""

from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "langchain",
    group="agents",
    job="an agent plans, waits for approval, is limited, summarizes, and returns an object",
    settings="`model.load()` before a `trigger` that is a fraction of the context window, which is known then",
)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_agent_plans_and_returns_an_object(serve: Serve, asynchronous: bool) -> None:
    from langchain.agents import create_agent
    from langchain.agents.middleware import HumanInTheLoopMiddleware, TodoListMiddleware
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.types import Command
    from pydantic import BaseModel

    from lmstudio_integrations.langchain import ChatLMStudio

    class Booking(BaseModel):
        pier: int

    def book(pier: int) -> str:
        """Book a ferry."""
        return f"booked at {pier}"

    plan = [{"content": "Book", "status": "in_progress"}]
    server = serve(
        {"when": {"last": "^Book"}, "then": [{"tool": "write_todos", "arguments": {"todos": plan}}]},
        {"when": {"last": "Updated todo"}, "then": [{"tool": "book", "arguments": {"pier": 7}}]},
        {"when": {"structured": True}, "then": '{"pier": 8}'},
        {"when": {"last": "booked at 8"}, "then": "It is booked."},
    )
    middleware = [TodoListMiddleware(), HumanInTheLoopMiddleware(interrupt_on={"book": True})]
    model = ChatLMStudio(model=CHAT)
    agent: Any = create_agent(
        model, [book], middleware=middleware, response_format=Booking, checkpointer=InMemorySaver()
    )
    thread: Any = {"configurable": {"thread_id": "1"}}

    async def run(value: Any) -> Any:
        return await agent.ainvoke(value, thread) if asynchronous else agent.invoke(value, thread)

    paused = await run({"messages": "Book a ferry."})
    (request,) = paused["__interrupt__"][0].value["action_requests"]
    assert (request["name"], request["args"]) == ("book", {"pier": 7})
    edited = {"type": "edit", "edited_action": {"name": "book", "args": {"pier": 8}}}
    ended = await run(Command(resume={"decisions": [edited]}))
    assert (ended["todos"], ended["structured_response"]) == (plan, Booking(pier=8))
    assert ended["messages"][-1].text == '{"pier": 8}'
    *asked, formatted = server.predictions
    assert [[each["function"]["name"] for each in one.tools] for one in asked] == [["write_todos", "book"]] * 3
    assert formatted.config["structured"]["jsonSchema"]["required"] == ["pier"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_agent_summarizes_and_is_limited(serve: Serve, asynchronous: bool) -> None:
    from langchain.agents import create_agent
    from langchain.agents.middleware import SummarizationMiddleware, ToolCallLimitMiddleware

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"last": "<messages>"}, "then": "They ask about piers."},
        {"then": [{"tool": "look", "arguments": {"pier": 1}}]},
        context_length=4096,
    )

    def look(pier: int) -> str:
        """Look at a pier."""
        return "There is no ferry here. " * 300

    model = ChatLMStudio(model=CHAT).load()
    middleware = [
        SummarizationMiddleware(model, trigger=("fraction", 0.5), keep=("messages", 2)),
        ToolCallLimitMiddleware(thread_limit=2, exit_behavior="end"),
    ]
    agent: Any = create_agent(model, [look], middleware=middleware)
    asked: Any = {"messages": "Where is the ferry?"}
    ended = await agent.ainvoke(asked) if asynchronous else agent.invoke(asked)
    summary, *_, limited, last = ended["messages"]
    assert summary.text == "Here is a summary of the conversation to date:\n\nThey ask about piers."
    assert (limited.name, limited.status) == ("look", "error")
    assert last.text == "Tool call limit reached: thread limit exceeded (3/2 calls)."
    used = [(len(one.tools), one.stats["promptTokensCount"] < 2048) for one in server.predictions]
    assert used == [(1, True), (1, True), (0, True), (1, True)]
    assert server.predictions[-1].messages[0] == {"role": "user", "content": summary.text}
