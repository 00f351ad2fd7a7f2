"""A deep agent plans, gives a task to a subagent, which writes a file, reads the file, and summarizes."""

from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "deepagents",
    group="agents",
    job="an agent, also one named by `lmstudio:…`, plans, a subagent writes a file, and the agent reads it",
    settings=(
        "`model.load()` before `create_deep_agent(model)`: it reads the context window then, to summarize in time. "
        "`register(small_window=True)` for 16,384 tokens or fewer: its tools take 1,420"
    ),
)

PLAN = [{"content": "Write the report", "status": "in_progress"}]
RULES: list[dict[str, Any]] = [
    {"when": {"last": "Write a report"}, "then": [{"tool": "write_todos", "arguments": {"todos": PLAN}}]},
    {
        "when": {"last": "Updated todo"},
        "then": [{"tool": "task", "arguments": {"description": "Report on piers.", "subagent_type": "writer"}}],
    },
    {
        "when": {"last": "Report on piers"},
        "then": [{"tool": "write_file", "arguments": {"file_path": "/report.md", "content": "Pier 7."}}],
    },
    {
        "when": {"tools": ["task"], "last": "It is in"},
        "then": [{"tool": "read_file", "arguments": {"file_path": "/report.md"}}],
    },
    {"when": {"tools": ["task"], "last": "Pier 7"}, "then": "The report is ready."},
    {"when": {"role": "tool"}, "then": "It is in /report.md."},
]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("named", [False, True])
async def test_an_agent_plans_and_delegates(serve: Serve, named: bool, asynchronous: bool) -> None:
    from deepagents import create_deep_agent
    from langchain.agents.middleware import TodoListMiddleware

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(*RULES)
    agent = create_deep_agent(
        model=f"lmstudio:{CHAT}" if named else ChatLMStudio(model=CHAT),
        system_prompt="You lead.",
        subagents=[{"name": "writer", "description": "Writes reports.", "system_prompt": "You write."}],
        middleware=[TodoListMiddleware()],
    )
    question: Any = {"messages": "Write a report."}
    state = await agent.ainvoke(question) if asynchronous else agent.invoke(question)
    assert state["todos"] == PLAN
    assert state["files"]["/report.md"]["content"] == "Pier 7."
    assert [(each.name, each.text) for each in state["messages"] if each.type == "tool"][1:] == [
        ("task", "It is in /report.md."),
        ("read_file", "@@ lines 1-1 of 1 @@\nPier 7."),
    ]
    assert state["messages"][-1].text == "The report is ready."
    files = ["ls", "read_file", "write_file", "edit_file", "delete", "glob", "grep"]
    lead, write = ("You lead.", {"write_todos", *files, "task"}), ("You write.", set(files))
    received = [
        (one.messages[0]["content"].partition("\n")[0], {each["function"]["name"] for each in one.tools})
        for one in server.predictions
    ]
    assert received == [lead, lead, write, write, lead, lead]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_agent_summarizes(serve: Serve, asynchronous: bool) -> None:
    from deepagents import create_deep_agent

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"tools": ["look"], "times": 5}, "then": [{"tool": "look", "arguments": {"pier": 1}}]},
        {"when": {"tools": ["look"]}, "then": "There is none."},
        {"then": "No ferry at pier 1."},
        context_length=8192,
    )

    def look(pier: int) -> str:
        """Look at a pier."""
        return "There is no ferry here. " * 400

    agent = create_deep_agent(ChatLMStudio(model=CHAT).load(), [look])
    question: Any = {"messages": "Where is the ferry?"}
    state = await agent.ainvoke(question) if asynchronous else agent.invoke(question)
    assert state["messages"][-1].text == "There is none."
    assert sum(not one.tools for one in server.predictions) == 4
    assert max(one.stats["promptTokensCount"] for one in server.predictions) < 4096
    assert "No ferry at pier 1." in server.predictions[-1].messages[-3]["content"]
