"""Histories of other programs, in which calls share an identifier, or have none: each is sent with its own result."""

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage, MessageRole

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests.support.served import served

Call = tuple[str | None, str]
"""Identifier and name."""

Result = tuple[str | None, str | None, str]
"""Identifier, name and text."""

Turn = tuple[list[Call], list[Result]]


def langchain(host: str, turns: list[Turn]) -> None:
    messages: list[Any] = []
    for calls, results in turns:
        requested: list[Any] = [{"name": name, "args": {}, "id": given} for given, name in calls]
        messages += [HumanMessage("q"), AIMessage("", tool_calls=requested)]
        messages += [ToolMessage(text, tool_call_id=given, name=name) for given, name, text in results]
    ChatLMStudio(model="m", host=host).invoke(messages)


def llama_index(host: str, turns: list[Turn]) -> None:
    messages: list[ChatMessage] = []
    for calls, results in turns:
        blocks = [ToolCallBlock(tool_call_id=given, tool_name=name, tool_kwargs={}) for given, name in calls]
        messages += [ChatMessage("q"), ChatMessage(role=MessageRole.ASSISTANT, blocks=list(blocks))]
        for given, name, text in results:
            members = {"tool_call_id": given, "name": name}
            messages.append(ChatMessage(text, role=MessageRole.TOOL, additional_kwargs=members))
    LMStudio(model="m", host=host).chat(messages)


def native(host: str, turns: list[Turn]) -> None:
    chat = lms.Chat()
    for calls, results in turns:
        chat.add_user_message("q")
        requests: list[Any] = [
            {"type": "function", "name": name, "arguments": {}, "id": given} for given, name in calls
        ]
        chat.add_assistant_response("", requests)
        for given, name, text in results:
            chat.add_tool_result({"type": "toolCallResult", "content": text, "toolCallId": given, "name": name})
    with lms.Client(host) as client:
        client.llm.model("m").respond(chat)


server = served([ModelEntry(key="m")])


def sent(server: Emulator) -> list[Turn]:
    """Return the calls and results of the last request."""
    turns: list[Turn] = []
    for message in server.predictions[-1].messages:
        if message["role"] == "assistant":
            calls = [part["toolCallRequest"] for part in message["content"] if part["type"] == "toolCallRequest"]
            turns.append(([(call.get("id"), call["name"]) for call in calls], []))
        elif message["role"] == "tool":
            results = [(part.get("toolCallId"), part.get("name"), part["content"]) for part in message["content"]]
            turns[-1][1].extend(results)
    return turns


AB: list[Call] = [("1", "a"), ("2", "b")]


@pytest.mark.parametrize("send", [langchain, llama_index, native])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            [([("x1", "a"), ("x1", "a")], [("x1", None, "A"), ("x1", None, "B")])],
            [([("x1", "a"), ("x2", "a")], [("x1", "a", "A"), ("x2", "a", "B")])],
            id="one identifier",
        ),
        pytest.param(
            [([("x1", "a"), ("x1", "b")], [("x1", "b", "B"), ("x1", "a", "A")])],
            [([("x1", "a"), ("x2", "b")], [("x2", "b", "B"), ("x1", "a", "A")])],
            id="one identifier, and results in another order",
        ),
        pytest.param(
            [([("1", "a")], [("1", None, "A")]), ([("1", "b")], [("1", None, "B")])],
            [([("1", "a")], [("1", "a", "A")]), ([("1", "b")], [("1", "b", "B")])],
            id="one identifier in two turns",
        ),
        pytest.param(
            [(AB, [("1", None, "A")]), ([("3", "c")], [("3", None, "C"), ("2", None, "B")])],
            [(AB, [("1", "a", "A")]), ([("3", "c")], [("3", "c", "C"), ("2", "b", "B")])],
            id="a late result",
        ),
        pytest.param(
            [([("", "a"), ("", "b")], [("", None, "A"), ("", None, "B")])],
            [([(None, "a"), (None, "b")], [(None, "a", "A"), (None, "b", "B")])],
            id="empty identifiers",
        ),
        pytest.param(
            [(AB, [("", "b", "B"), ("", "a", "A"), ("", "c", "C")])],
            [(AB, [("2", "b", "B"), ("1", "a", "A"), (None, "c", "C")])],
            id="results with names alone",
        ),
        pytest.param([(AB, [("9", None, "A")])], [(AB, [("9", None, "A")])], id="a result without a call"),
    ],
)
def test_each_call_has_its_own_result(
    given: list[Turn], expected: list[Turn], send: Callable[[str, list[Turn]], None], server: Emulator
) -> None:
    send(server.address, given)
    assert sent(server) == expected


@pytest.mark.parametrize(
    ("content", "calls", "invalid", "expected"),
    [
        (["tool_use"], [], [], ["1"]),
        (["tool_use", "tool_use"], [], [], ["1", "2"]),
        (["tool_call"], [None], [], [None]),
        ([], ["1", "1"], [], ["1", "2"]),
        (["tool_use"], [], ["1"], ["1"]),
        ([], ["1"], ["1", "7"], ["1", "2"]),
    ],
)
def test_a_call_that_langchain_keeps_in_two_places_is_sent_once(
    content: list[str], calls: list[Any], invalid: list[str], expected: list[Any], server: Emulator
) -> None:
    given = calls[0] if calls else "1"
    blocks: list[Any] = [{"type": kind, "name": "a", "id": given, "input": {}} for kind in content]
    message = AIMessage(
        blocks,
        tool_calls=[{"name": "a", "args": {}, "id": each} for each in calls],
        invalid_tool_calls=[{"name": "a", "args": "{", "id": each, "error": None} for each in invalid],
    )
    result = ToolMessage("A", tool_call_id="1")
    ChatLMStudio(model="m", host=server.address).invoke([HumanMessage("q"), message, result])
    ((sent_calls, _),) = sent(server)
    assert [call_id for call_id, _ in sent_calls] == expected
