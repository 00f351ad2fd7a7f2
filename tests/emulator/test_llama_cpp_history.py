"""Conversations as llama.cpp takes them, and what is left out of long ones. All ours, without an engine."""

import base64
from typing import Any

import pytest

from lmstudio_integrations.emulator.engines.base import Image
from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp import context_window
from lmstudio_integrations.emulator.engines.llama_cpp import messages as converter
from lmstudio_integrations.types.chat import Chat, ChatHistory
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.tools import Tool, ToolCallRequest, ToolCallResultPart

CAT = FileHandle(name="cat", identifier="c1", size_bytes=9, file_type="image")
TOOL = Tool.from_dict({"function": {"name": "add", "description": "Adds"}})


def conversation() -> ChatHistory:
    chat = Chat("Be terse.")
    chat.add_user_message("1+2?")
    chat.add_assistant_response("Let me see.", [ToolCallRequest(id="7", name="add", arguments={"a": 1, "b": 2})])
    chat.add_tool_results([ToolCallResultPart(content="3", tool_call_id="7", name="add")])
    chat.add_assistant_response("", [ToolCallRequest(name="done")])
    chat.add_tool_results([ToolCallResultPart(content="ok"), ToolCallResultPart(content="good")])
    chat.add_user_message("And now?")
    return chat.to_history()


def test_calls_go_to_a_template_that_knows_them() -> None:
    messages = converter.to_messages(conversation(), native_tools=True)
    assert [message["role"] for message in messages] == [
        *("system", "user", "assistant", "tool", "assistant", "tool", "tool", "user")
    ]
    call = {"type": "function", "id": "7", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
    assert messages[2] == {"role": "assistant", "content": "Let me see.", "tool_calls": [call]}
    assert messages[3] == {"role": "tool", "content": "3", "tool_call_id": "7", "name": "add"}
    assert messages[4]["tool_calls"][0]["id"] == "done"
    assert messages[5] == {"role": "tool", "content": "ok", "tool_call_id": ""}


def test_calls_become_text_for_a_template_that_does_not() -> None:
    messages = converter.to_messages(conversation(), native_tools=False)
    assert messages == [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": "1+2?"},
        {
            "role": "assistant",
            "content": 'Let me see.\n[TOOL_REQUEST]{"name": "add", "arguments": {"a": 1, "b": 2}}[END_TOOL_REQUEST]',
        },
        {"role": "user", "content": "[TOOL_RESULT]3[END_TOOL_RESULT]"},
        {"role": "assistant", "content": '[TOOL_REQUEST]{"name": "done", "arguments": {}}[END_TOOL_REQUEST]'},
        {
            "role": "user",
            "content": "[TOOL_RESULT]ok[END_TOOL_RESULT]\n[TOOL_RESULT]good[END_TOOL_RESULT]\n\nAnd now?",
        },
    ]


def test_neighbours_of_one_role_become_one_message() -> None:
    history = ChatHistory.from_dict(
        {
            "messages": [
                {"role": role, "content": [{"type": "text", "text": text}]}
                for role, text in (("system", "a"), ("system", "b"), ("user", "c"), ("user", ""), ("user", "d"))
            ]
        }
    )
    assert converter.to_messages(history, native_tools=False) == [
        {"role": "system", "content": "a\n\nb"},
        {"role": "user", "content": "c\n\nd"},
    ]


def test_neighbours_keep_their_calls() -> None:
    part = {"type": "toolCallRequest", "toolCallRequest": {"type": "function", "name": "add"}}
    history = ChatHistory.from_dict({"messages": [{"role": "assistant", "content": [part]}] * 2})
    (message,) = converter.to_messages(history, native_tools=True)
    assert len(message["tool_calls"]) == 2


@pytest.mark.parametrize(
    ("data", "media"),
    [
        (b"\x89PNG\r\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"RIFF0000WEBP", "image/webp"),
        (b"?", "application/octet-stream"),
    ],
)
def test_a_picture_travels_inside_its_message(data: bytes, media: str) -> None:
    chat = Chat("Look.")
    chat.add_user_message("What?", images=[CAT])
    messages = converter.to_messages(chat.to_history(), native_tools=False, images={"c1": Image("cat", data)})
    url = f"data:{media};base64,{base64.b64encode(data).decode()}"
    assert messages[1]["content"] == [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]


def test_neighbours_with_pictures_keep_them_in_order() -> None:
    history = ChatHistory.from_dict(
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}]},
                {"role": "user", "content": [CAT.to_dict()]},
                {"role": "user", "content": [{"type": "text", "text": "b"}]},
            ]
        }
    )
    (message,) = converter.to_messages(history, native_tools=False, images={"c1": Image("cat", b"\x89PNG")})
    assert [part["type"] for part in message["content"]] == ["text", "image_url", "text"]


def test_a_picture_that_was_never_uploaded_is_refused() -> None:
    chat = Chat()
    chat.add_user_message("What?", images=[CAT])
    with pytest.raises(EngineError, match="'cat' is not an uploaded image"):
        converter.to_messages(chat.to_history(), native_tools=False, images={})


def test_instructions_and_a_system_prompt_find_their_place() -> None:
    with_system = converter.to_messages(conversation(), native_tools=False, system_prompt="unused", instructions="Do.")
    assert with_system[0] == {"role": "system", "content": "Be terse.\n\nDo."}
    chat = Chat()
    chat.add_user_message("Hi")
    messages = converter.to_messages(
        chat.to_history(), native_tools=False, system_prompt="Be kind.", instructions="Do."
    )
    assert [message["content"] for message in messages] == ["Be kind.\n\nDo.", "Hi"]
    assert converter.to_messages(chat.to_history(), native_tools=False) == [{"role": "user", "content": "Hi"}]


def test_the_model_is_told_of_each_tool() -> None:
    text = converter.tool_instructions([TOOL])
    assert '{"name": "add", "description": "Adds"}' in text
    assert "JSON" in text


def chat_of(*roles: str) -> ChatHistory:
    def content(role: str, at: int) -> dict[str, Any]:
        kind = "toolCallResult" if role == "tool" else "text"
        return {"type": kind, "content" if role == "tool" else "text": str(at)}

    return ChatHistory.from_dict(
        {"messages": [{"role": role, "content": [content(role, at)]} for at, role in enumerate(roles)]}
    )


def numbers(history: ChatHistory) -> list[int]:
    """Return the numbers that stand in the messages."""
    parts = [part.to_dict() for message in history.messages for part in message.content]
    return [int(part.get("text") or part["content"]) for part in parts]


LONG = ("system", "user", "assistant", "tool", "assistant", "user", "assistant", "user")


def test_the_middle_goes_first_and_calls_go_with_their_answers() -> None:
    choices = [numbers(choice()) for choice in context_window.shortened(chat_of(*LONG).messages, keep_first=True)]
    assert choices == [[0, 1, 4, 5, 6, 7], [0, 1, 5, 6, 7], [0, 1, 6, 7], [0, 1, 7]]


def test_the_oldest_goes_first() -> None:
    choices = [numbers(choice()) for choice in context_window.shortened(chat_of(*LONG).messages, keep_first=False)]
    assert choices == [[0, 5, 6, 7], [0, 7]]


def test_without_a_later_question_what_is_left_begins_with_an_answer() -> None:
    messages = chat_of("user", "assistant", "tool", "assistant").messages
    choices = [numbers(choice()) for choice in context_window.shortened(messages, keep_first=False)]
    assert choices == [[1, 2, 3], [3]]


def test_nothing_can_be_left_out_of_one_question() -> None:
    assert context_window.shortened(chat_of("system", "user").messages, keep_first=True) == []
    assert context_window.shortened(chat_of("user").messages, keep_first=False) == []
    assert context_window.shortened(chat_of("system").messages, keep_first=False) == []


async def ten_each(history: ChatHistory) -> int:
    return 10 * len(history.messages)


@pytest.mark.parametrize(
    ("window", "policy", "kept"),
    [
        (81, "truncateMiddle", list(range(8))),
        (80, "truncateMiddle", [0, 1, 4, 5, 6, 7]),
        (57, "truncateMiddle", [0, 1, 5, 6, 7]),
        (32, "truncateMiddle", [0, 1, 7]),
        (80, "rollingWindow", [0, 5, 6, 7]),
        (21, "rollingWindow", [0, 7]),
        (80, None, [0, 1, 4, 5, 6, 7]),
    ],
)
async def test_as_much_as_fits_is_kept(window: int, policy: str | None, kept: list[int]) -> None:
    history, tokens = await context_window.fit(chat_of(*LONG), ten_each, window, policy)
    assert numbers(history) == kept
    assert tokens == 10 * len(kept)


@pytest.mark.parametrize(("window", "policy"), [(80, "stopAtLimit"), (30, "truncateMiddle"), (20, "rollingWindow")])
async def test_what_does_not_fit_is_refused(window: int, policy: str) -> None:
    with pytest.raises(EngineError, match=f"length of only {window} tokens"):
        await context_window.fit(chat_of(*LONG), ten_each, window, policy)


def test_raw_text_is_cut_as_the_policy_says() -> None:
    tokens = list(range(100))
    assert context_window.truncate(tokens, 101, "stopAtLimit") == tokens
    assert context_window.truncate(tokens, 16, "truncateMiddle") == [*range(7), *range(93, 100)]
    assert context_window.truncate(tokens, 16, "rollingWindow") == list(range(86, 100))
    with pytest.raises(EngineError, match="first 100 tokens"):
        context_window.truncate(tokens, 100, "stopAtLimit")
    with pytest.raises(EngineError, match="only 1 tokens"):
        context_window.truncate(tokens, 1, "rollingWindow")


def test_a_hundred_thousand_messages_are_neither_copied_nor_joined_again_and_again() -> None:
    chat = chat_of(*["user"] * 100_000)
    (message,) = converter.to_messages(chat, native_tools=False)
    assert message["content"].count("\n\n") == 99_999
    choices = context_window.shortened(chat.messages, keep_first=False)
    assert numbers(choices[-1]()) == [99_999]


def test_texts_and_pictures_of_neighbours_stay_in_order() -> None:
    before, after = ({"role": "user", "content": [{"type": "text", "text": text}]} for text in ("a", "z"))
    picture = {"role": "user", "content": [CAT.to_dict()]}
    history = ChatHistory.from_dict({"messages": [before, before, picture, after]})
    (message,) = converter.to_messages(history, native_tools=False, images={"c1": Image("cat", b"\x89PNG")})
    assert [part.get("text", "picture") for part in message["content"]] == ["a\n\na", "picture", "z"]


LONG_TEXT = "x" * 2_000_000


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "text", "text": LONG_TEXT}]},
        {"role": "tool", "content": [{"type": "toolCallResult", "content": LONG_TEXT}]},
        {
            "role": "assistant",
            "content": [
                {
                    "type": "toolCallRequest",
                    "toolCallRequest": {"type": "function", "name": "f", "arguments": {"a": LONG_TEXT}},
                }
            ],
        },
    ],
    ids=["text", "result", "call"],
)
def test_a_conversation_that_would_hold_the_worker_is_refused(message: dict[str, Any]) -> None:
    assert converter.to_messages(ChatHistory.from_dict({"messages": [message] * 8}), native_tools=True)
    with pytest.raises(EngineError, match="prompt is longer than 16777216 characters"):
        converter.to_messages(ChatHistory.from_dict({"messages": [message] * 9}), native_tools=True)


def test_a_template_of_prefixes_cannot_fill_the_memory() -> None:
    messages = [{"role": "user", "content": "x"}] * 1000
    with pytest.raises(EngineError, match="prompt is longer than 16777216 characters"):
        converter.render_manual({"beforeUser": "p" * 1_000_000}, messages)
