"""The development server of LangGraph runs an agent, and looks for calls that block its event loop."""

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from threading import Thread
from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.neighbour(
    "langgraph-api",
    "langgraph-cli",
    group="agents",
    job="`langgraph dev` serves an agent, whose run waits for approval; no call blocks its event loop",
    environment={"LANGGRAPH_CLI_NO_ANALYTICS": "1", "LANGGRAPH_NO_VERSION_CHECK": "true"},
    weekly=True,
)

AGENT = '''
import time

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langgraph.graph import START, MessagesState, StateGraph

from lmstudio_integrations.langchain import ChatLMStudio


def book(pier: int) -> str:
    """Book a ferry."""
    return f"booked at {pier}"


async def block(state: MessagesState) -> None:
    time.sleep(0)


approval = HumanInTheLoopMiddleware(interrupt_on={"book": True})
agent = create_agent(ChatLMStudio(model="CHAT"), [book], middleware=[approval])
blocking = StateGraph(MessagesState).add_node(block).add_edge(START, "block").compile()
'''


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def address(serve: Serve, tmp_path: Path) -> Iterator[tuple[str, Emulator]]:
    """The address of a development server, and the server of the model."""
    server = serve(
        {"when": {"role": "tool"}, "then": "It said: {last}"},
        {"then": [{"tool": "book", "arguments": {"pier": 7}}]},
    )
    (tmp_path / "graphs.py").write_text(AGENT.replace("CHAT", CHAT))
    graphs = {name: f"./graphs.py:{name}" for name in ("agent", "blocking")}
    (tmp_path / "langgraph.json").write_text(json.dumps({"dependencies": ["."], "graphs": graphs}))
    port = str(_free_port())
    command = [sys.executable, "-m", "langgraph_cli", "dev", "--no-browser", "--no-reload", "--port", port]
    with Popen(command, cwd=tmp_path, stdout=PIPE, stderr=STDOUT, text=True) as process:
        try:
            assert process.stdout
            assert any("Application started up" in line for line in process.stdout)
            Thread(target=process.stdout.read).start()
            yield f"http://127.0.0.1:{port}", server
        finally:
            process.terminate()


async def test_an_agent_is_served(address: tuple[str, Emulator]) -> None:
    from langgraph_sdk import get_client

    url, server = address
    client = get_client(url=url)
    thread = (await client.threads.create())["thread_id"]
    question: Any = {"messages": [{"role": "user", "content": "Book a ferry."}]}
    paused: Any = await client.runs.wait(thread, "agent", input=question)
    assert [each["name"] for each in paused["__interrupt__"][0]["value"]["action_requests"]] == ["book"]
    resume: Any = {"resume": {"decisions": [{"type": "approve"}]}}
    ended: Any = await client.runs.wait(thread, "agent", command=resume)
    told = ended["messages"][-1]
    assert told["content"] == "It said: booked at 7"
    assert told["usage_metadata"]["total_tokens"] == server.predictions[1].stats["totalTokensCount"]
    assert [[each["role"] for each in one.messages] for one in server.predictions] == [
        ["user"],
        ["user", "assistant", "tool"],
    ]
    blocked: Any = await client.runs.wait(None, "blocking", input=question, raise_error=False)
    assert blocked["__error__"]["error"] == "BlockingError"
