"""Ways to run an agent, and models that say what a script has, for the tests of middleware."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from lmstudio_integrations.emulator import ModelEntry
from tests.langchain.conftest import Server

Run = Callable[..., list[BaseMessage]]
Script = Callable[..., Server]


def _invoke(agent: Any, question: str = "Hello!", **config: Any) -> list[BaseMessage]:
    messages: list[BaseMessage] = agent.invoke({"messages": [HumanMessage(question)]}, **config)["messages"]
    return messages


def _ainvoke(agent: Any, question: str = "Hello!", **config: Any) -> list[BaseMessage]:
    state = asyncio.run(agent.ainvoke({"messages": [HumanMessage(question)]}, **config))
    messages: list[BaseMessage] = state["messages"]
    return messages


def _stream(agent: Any, question: str = "Hello!", **config: Any) -> list[BaseMessage]:
    state: Any = None
    inputs = {"messages": [HumanMessage(question)]}
    for mode, part in agent.stream(inputs, stream_mode=["messages", "values"], **config):
        state = part if mode == "values" else state
    messages: list[BaseMessage] = state["messages"]
    return messages


WAYS: dict[str, Run] = {"invoke": _invoke, "ainvoke": _ainvoke, "stream": _stream}


@pytest.fixture(params=WAYS)
def run(request: pytest.FixtureRequest) -> Run:
    """Each way to run an agent, with the messages of its state as result."""
    return WAYS[request.param]


@pytest.fixture
def script() -> Iterator[Script]:
    """Start servers whose model has these turns, and then the last one again and again."""
    servers: list[Server] = []

    def start(*turns: Sequence[dict[str, Any]], finally_: Sequence[dict[str, Any]], **model: Any) -> Server:
        rules = [{"when": {"round": at}, "then": list(turn)} for at, turn in enumerate(turns, 1)]
        entry = ModelEntry(key="scripted", rules=(*rules, {"then": list(finally_)}), **model)
        servers.append(Server([entry]))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def assert_is_valid(messages: Sequence[BaseMessage]) -> None:
    """Each call has one result, right after its message, and a result has its call."""
    expected: list[str] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            expected.remove(message.tool_call_id)
        else:
            assert not expected, f"{message!r} follows on calls without results"
        if isinstance(message, AIMessage):
            expected = [str(call["id"]) for call in message.tool_calls]
            if message is not messages[-1]:
                expected += [str(call["id"]) for call in message.invalid_tool_calls]
    assert not expected
