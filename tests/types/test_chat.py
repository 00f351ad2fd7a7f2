"""Conversations: how they grow, what they are built from, what they reject."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic.alias_generators import to_snake

import lmstudio_integrations as lms
from lmstudio_integrations.types.chat import ChatHistory, TextPart
from lmstudio_integrations.types.files import Origin
from lmstudio_integrations.types.functions import ToolCallRequestPart, ToolCallResultPart
from tests.protocol.samples import FILE, HISTORY, TOOL_CALL
from tests.support.strict.shapes import schema_of, wrong_with

DESCRIBED = schema_of("llm", "predict", "creationParameter", "history")
CALL = {"type": "toolCallRequest", "toolCallRequest": TOOL_CALL}
CALL_PART = ToolCallRequestPart(tool_call_request=lms.ToolCallRequest.from_dict(TOOL_CALL))
IMAGE = lms.FileHandle(name="cat.png", identifier="abc", size_bytes=31358, file_type="image")


def text(value: str) -> dict[str, Any]:
    """Return the wire form of text."""
    return {"type": "text", "text": value}


def wire(chat: lms.Chat) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return role and content of each message, in wire form, after the strict checks has seen them."""
    history = chat.to_history().to_dict()
    assert not list(wrong_with(json.loads(json.dumps(history)), DESCRIBED, "history"))
    return [(message["role"], message["content"]) for message in history["messages"]]


def test_consecutive_messages_of_one_role_become_one() -> None:
    chat = lms.Chat("Be terse.")
    chat.add_system_prompt("Be kind.")
    chat.add_user_message("a")
    chat.add_user_message("b", images=[IMAGE])
    chat.add_assistant_response("c")
    chat.add_assistant_response("d")
    chat.add_user_message("e")
    assert wire(chat) == [
        ("system", [text("Be terse."), text("Be kind.")]),
        ("user", [text("a"), text("b"), FILE]),
        ("assistant", [text("c"), text("d")]),
        ("user", [text("e")]),
    ]
    assert len(chat) == 4


def test_every_role_has_its_parts() -> None:
    chat = lms.Chat()
    chat.add_system_prompt([text("You are terse.")])
    chat.add_user_message(["What is this?", IMAGE])
    chat.add_assistant_response("Let me compute.", [lms.ToolCallRequest.from_dict(TOOL_CALL)])
    chat.add_tool_results([ToolCallResultPart(content="3", tool_call_id="abc", name="add")])
    assert chat.to_history().to_dict() == HISTORY


def test_calls_and_results_without_an_id_are_sent_without_one() -> None:
    chat = lms.Chat()
    chat.add_assistant_response("a", [lms.ToolCallRequest(name="add", id=None, arguments=None)])
    chat.add_tool_results([ToolCallResultPart(content="3", tool_call_id=None, name=None)])
    assert wire(chat) == [
        ("assistant", [text("a"), {"type": "toolCallRequest", "toolCallRequest": {"type": "function", "name": "add"}}]),
        ("tool", [{"type": "toolCallResult", "content": "3"}]),
    ]


@pytest.mark.parametrize("drop", [(), ("type",)])
@pytest.mark.parametrize("spelling", [str, to_snake], ids=["camelCase", "snake_case"])
def test_dicts_of_parts_may_omit_their_type(drop: tuple[str, ...], spelling: Callable[[str], str]) -> None:
    file, part = ({spelling(name): value for name, value in each.items() if name not in drop} for each in (FILE, CALL))
    chat = lms.Chat()
    chat.add_system_prompt({"text": "Be terse."})
    chat.add_user_message([{"text": "Look."}, file], images=[file])
    chat.add_assistant_response({"text": "Let me compute."}, [part])
    chat.add_entry("assistant", [file, part])
    assert wire(chat) == [
        ("system", [text("Be terse.")]),
        ("user", [text("Look."), FILE, FILE]),
        ("assistant", [text("Let me compute."), CALL, FILE, CALL]),
    ]
    with pytest.raises(lms.LMStudioValueError, match="role must be one of"):
        chat.add_entry("developer", "a")


def test_parts_and_tool_calls_may_be_objects_or_dicts_of_either_form() -> None:
    chat = lms.Chat()
    chat.add_user_message(iter(["a", "b"]))
    for request in (TOOL_CALL, lms.ToolCallRequest.from_dict(TOOL_CALL), CALL_PART):
        chat.add_assistant_response("", [request])
    chat.add_tool_result({"content": "3"})
    chat.add_tool_result(ToolCallResultPart(content="4"))
    assert wire(chat) == [
        ("user", [text("a"), text("b")]),
        ("assistant", [text(""), CALL] * 3),
        ("tool", [{"type": "toolCallResult", "content": "3"}, {"type": "toolCallResult", "content": "4"}]),
    ]


def test_what_was_added_is_returned_as_it_stands_in_the_chat() -> None:
    chat = lms.Chat()
    assert isinstance(chat.add_system_prompt("a"), lms.SystemMessage)
    assert isinstance(chat.add_user_message("a"), lms.UserMessage)
    assert isinstance(chat.add_assistant_response("a"), lms.AssistantMessage)
    assert isinstance(chat.add_tool_results([{"type": "toolCallResult", "content": "a"}]), lms.ToolMessage)
    grown = chat.add_tool_results([ToolCallResultPart(content="b")])
    assert [part.content for part in grown.content] == ["a", "b"]
    assert chat.messages[-1] is grown


def test_of_a_finished_prediction_only_the_response_is_kept() -> None:
    result = lms.PredictionResult("42", "Let me see.", lms.PredictionEnd({"stopReason": "eosFound"}, {}, {}, {}))
    chat = lms.Chat()
    chat.add_assistant_response(result)
    assert wire(chat) == [("assistant", [text("42")])]


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ("hi", [("user", [text("hi")])]),
        ([], []),
        ({"messages": [{"role": "user", "content": "hi"}]}, [("user", [text("hi")])]),
        ([{"role": "user", "content": "hi"}], [("user", [text("hi")])]),
        (
            ({"role": "system", "content": "a"}, lms.UserMessage(content=[TextPart(text="hi")])),
            [("system", [text("a")]), ("user", [text("hi")])],
        ),
        ({"messages": [{"role": "user", "content": text("hi")}]}, [("user", [text("hi")])]),
        ({"messages": [{"role": "user", "content": ["hi", FILE]}]}, [("user", [text("hi"), FILE])]),
        ({"messages": [{"role": "user", "content": []}]}, [("user", [])]),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
            [("user", [text("a"), text("b")])],
        ),
        (
            {"messages": [{"role": "tool", "content": {"type": "toolCallResult", "content": "3"}}]},
            [("tool", [{"type": "toolCallResult", "content": "3"}])],
        ),
        (
            {"messages": [lms.UserMessage(content=[TextPart(text="hi")])]},
            [("user", [text("hi")])],
        ),
        ({"messages": [{"role": "user", "content": "hi", "tool_calls": None}]}, [("user", [text("hi")])]),
        (HISTORY, [(message["role"], message["content"]) for message in HISTORY["messages"]]),
        (ChatHistory.from_dict(HISTORY), [(message["role"], message["content"]) for message in HISTORY["messages"]]),
    ],
)
def test_a_history_may_be_text_or_messages_in_any_of_their_forms(history: Any, expected: Any) -> None:
    chat = lms.Chat.from_history(history)
    assert (wire(chat) if len(chat) else []) == expected


@pytest.mark.parametrize("copied", [lms.Chat.copy, copy.copy, copy.deepcopy, lms.Chat.from_history])
def test_a_copy_shares_nothing_that_can_change(copied: Callable[[lms.Chat], lms.Chat]) -> None:
    chat = lms.Chat.from_history(HISTORY)
    other: Any = copied(chat)
    assert other.to_history() == chat.to_history()
    other.messages[1].content.clear()
    other.messages[2].content[1].tool_call_request.arguments["a"] = 9
    other.add_user_message("More?")
    assert chat.to_history().to_dict() == HISTORY


def test_a_chat_shows_how_to_build_it_again() -> None:
    chat = lms.Chat.from_history(HISTORY)
    again = eval(repr(chat), {"Chat": lms.Chat})
    assert again.to_history() == chat.to_history()


Untyped: Any = lms.Chat
"""The class as callers see it who check no types."""


def _bad(role: str, content: Any) -> Callable[[], Any]:
    return lambda: Untyped.from_history({"messages": [{"role": role, "content": content}]})


def _with_more(role: str, **more: Any) -> Callable[[], Any]:
    return lambda: Untyped.from_history({"messages": [{"role": role, "content": "hi", **more}]})


@pytest.mark.parametrize(
    ("make", "finding"),
    [
        (lambda: Untyped.from_history(5), "a history must be a string, a chat or a list of messages; got 5"),
        (lambda: Untyped.from_history({}), "got {}"),
        (
            lambda: Untyped.from_history(["hi"]),
            "a message must be an object, or a dict with role and content; got 'hi'",
        ),
        (lambda: Untyped.from_history({"messages": [{"content": "hi"}]}), "role must be one of system, user"),
        (_bad("developer", "hi"), "got 'developer'"),
        (lambda: Untyped.from_history({"messages": [{"role": ["user"], "content": "hi"}]}), "got ['user']"),
        (_bad("user", None), "content must be a string, a part or a list of parts; got None"),
        (_bad("user", [5]), "content does not fit a message of UserMessage"),
        (_bad("user", [{"type": "toolCallRequest"}]), "content does not fit a message of UserMessage"),
        (_bad("tool", "3"), "content does not fit a message of ToolMessage"),
        (_bad("system", b"hi"), "content does not fit a message of SystemMessage"),
        (lambda: Untyped().append(5), "got 5"),
        (_with_more("assistant", tool_calls=[{"id": "1"}]), "no 'tool_calls'; add tool calls with add_assistant_resp"),
        (_with_more("tool", tool_call_id="1"), "no 'tool_call_id'; add the results of tools with add_tool_result()"),
        (_with_more("user", images=["a.png"]), "no 'images'; prepare them with prepare_image()"),
        (_with_more("assistant", reasoning_content=5), "reasoning_content must be a string; got 5"),
        (lambda: Untyped().add_assistant_response("hi", None), "must be a list of ToolCallRequest; got None"),
        (lambda: Untyped().add_assistant_response("hi", ["add"]), "must be a list of ToolCallRequest; got ['add']"),
        (
            lambda: Untyped().add_assistant_response("hi", [TextPart(text="a")]),
            "list of ToolCallRequest; got [TextPart",
        ),
        (lambda: Untyped().add_assistant_response("hi", [{"id": "1"}]), "content does not fit a message of Assistant"),
        (lambda: Untyped().add_tool_results(5), "results must be a list of tool results; got 5"),
        (lambda: Untyped().add_user_message("hi", images=IMAGE), "which prepare_image(…) returns; got File"),
        (lambda: Untyped().add_user_message("hi", images=["cat.png"]), "prepare_image(…) returns; got 'cat.png'"),
        (lambda: Untyped().to_history(), "the chat is empty"),
    ],
)
def test_what_is_no_conversation_is_rejected_with_its_value(make: Callable[[], Any], finding: str) -> None:
    with pytest.raises(lms.LMStudioValueError) as caught:
        make()
    assert finding in str(caught.value)


def test_what_else_is_stored_in_a_message_is_ignored_and_its_reasoning_is_kept() -> None:
    others = {"id": "m1", "name": "bob", "timestamp": 5, "tool_calls": [], "images": None}
    chat = lms.Chat.from_history(
        [
            {"role": "user", "content": "hi", "reasoning_content": "not mine", **others},
            {"role": "assistant", "content": "Hello!", "reasoning_content": "Greet.", **others},
        ]
    )
    assert chat.messages == (
        lms.UserMessage(content=[TextPart(text="hi")]),
        lms.AssistantMessage(content=[lms.ReasoningPart(text="Greet."), TextPart(text="Hello!")]),
    )


def test_a_message_that_is_rejected_does_not_change_the_chat() -> None:
    chat = lms.Chat("a")
    with pytest.raises(lms.LMStudioValueError):
        chat.add_system_prompt([5])  # type: ignore[list-item]  # the fault is the point
    assert wire(chat) == [("system", [text("a")])]


@pytest.mark.parametrize("value", ["", "😀", "\x00", '"\\', "\ud83d"])
def test_any_text_can_be_written_and_read_again(value: str) -> None:
    history = lms.Chat.from_history(value).to_history()
    assert ChatHistory.from_dict(json.loads(history.to_json())) == history
    assert history.to_json().encode(), "a socket takes it"


def test_a_file_keeps_its_origin_on_the_way_through_a_chat() -> None:
    origin = Origin("cat.png", bytes, ("abc", None))
    bound = IMAGE.with_origin(origin)
    chat = lms.Chat()
    chat.add_user_message("a", images=[bound])
    chat.add_user_message("b")
    part = chat.copy().messages[0].content[1]
    assert isinstance(part, lms.FileHandle)
    assert part.origin is origin
    assert IMAGE.origin is None
    assert part.to_dict() == FILE, "the server is told nothing of it"


def test_a_thought_joins_no_texts_of_two_messages() -> None:
    thought = lms.ReasoningPart(text="one")
    for before, gap in ((TextPart(text="a"), [TextPart(text="\n\n")]), (thought, [])):
        chat = lms.Chat()
        chat.add_assistant_response([before])
        chat.add_assistant_response([thought, TextPart(text="b")])
        (message,) = chat.messages
        assert message.content == [before, *gap, thought, TextPart(text="b")]
