"""Conversations in llama.cpp's form."""

import base64
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.base import EngineError, Image
from lmstudio_integrations.emulator.engines.llama_cpp import request_body as converter
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.functions import Tool, ToolCallResultPart

CAT = lms.FileHandle(name="cat", identifier="c1", size_bytes=9, file_type="image")
PNG = b"\x89PNG\r\n\x1a\n"


def conversation() -> ChatHistory:
    chat = lms.Chat("Be terse.")
    chat.add_user_message("1+2?")
    chat.add_assistant_response("Let me see.", [lms.ToolCallRequest(id="7", name="add", arguments={"a": 1, "b": 2})])
    chat.add_tool_results([ToolCallResultPart(content="3", tool_call_id="7", name="add")])
    chat.add_assistant_response("", [lms.ToolCallRequest(name="done")])
    chat.add_tool_results([ToolCallResultPart(content="ok"), ToolCallResultPart(content="good")])
    chat.add_user_message("And now?")
    return chat.to_history()


def history_of(*messages: tuple[str, dict[str, Any]]) -> ChatHistory:
    return ChatHistory.from_dict({"messages": [{"role": role, "content": [part]} for role, part in messages]})


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


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
    call = '[TOOL_REQUEST]{"name": "add", "arguments": {"a": 1, "b": 2}}[END_TOOL_REQUEST]'
    results = "[TOOL_RESULT]ok[END_TOOL_RESULT]\n[TOOL_RESULT]good[END_TOOL_RESULT]"
    assert converter.to_messages(conversation(), native_tools=False) == [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": "1+2?"},
        {"role": "assistant", "content": f"Let me see.\n{call}"},
        {"role": "user", "content": "[TOOL_RESULT]3[END_TOOL_RESULT]"},
        {"role": "assistant", "content": '[TOOL_REQUEST]{"name": "done", "arguments": {}}[END_TOOL_REQUEST]'},
        {"role": "user", "content": f"{results}\n\nAnd now?"},
    ]


def test_calls_become_text_for_a_template_that_shows_only_tools_and_results() -> None:
    messages = converter.to_messages(conversation(), native_tools=True, native_calls=False)
    call = '[TOOL_REQUEST]{"name": "add", "arguments": {"a": 1, "b": 2}}[END_TOOL_REQUEST]'
    assert messages[2:4] == [
        {"role": "assistant", "content": f"Let me see.\n{call}"},
        {"role": "tool", "content": "3", "tool_call_id": "7", "name": "add"},
    ]


def test_adjacent_messages_of_one_role_become_one_which_keeps_all_calls() -> None:
    call = {"type": "toolCallRequest", "toolCallRequest": {"type": "function", "name": "add"}}
    texts = [("system", text("a")), ("system", text("b")), *(("user", text(each)) for each in ("c", "", "d"))]
    *merged, message = converter.to_messages(history_of(*texts, *[("assistant", call)] * 2), native_tools=True)
    assert merged == [{"role": "system", "content": "a\n\nb"}, {"role": "user", "content": "c\n\nd"}]
    assert len(message["tool_calls"]) == 2


@pytest.mark.parametrize(("data", "media"), [(PNG, "image/png"), (b"?", "application/octet-stream")])
def test_an_image_is_sent_inside_its_message(data: bytes, media: str) -> None:
    chat = lms.Chat("Look.")
    chat.add_user_message("What?", images=[CAT])
    messages = converter.to_messages(chat.to_history(), native_tools=False, images={"c1": Image("cat", data)})
    url = f"data:{media};base64,{base64.b64encode(data).decode()}"
    assert messages[1]["content"] == [text("What?"), {"type": "image_url", "image_url": {"url": url}}]


@pytest.mark.parametrize(("before", "shown"), [(["a", "b"], ["a\n\nb", "image", "z"]), ([], ["image", "z"])])
def test_texts_and_images_of_adjacent_messages_stay_in_order(before: list[str], shown: list[str]) -> None:
    history = history_of(*(("user", text(each)) for each in before), ("user", CAT.to_dict()), ("user", text("z")))
    (message,) = converter.to_messages(history, native_tools=False, images={"c1": Image("cat", PNG)})
    assert [part.get("text", "image") for part in message["content"]] == shown


def test_an_image_that_was_never_uploaded_is_rejected() -> None:
    with pytest.raises(EngineError, match="'cat' is not an uploaded image"):
        converter.to_messages(history_of(("user", CAT.to_dict())), native_tools=False, images={})


def test_instructions_and_a_system_prompt_find_their_place() -> None:
    with_system = converter.to_messages(conversation(), native_tools=False, system_prompt="unused", instructions="Do.")
    assert with_system[0] == {"role": "system", "content": "Be terse.\n\nDo."}
    history = history_of(("user", text("Hi")))
    messages = converter.to_messages(history, native_tools=False, system_prompt="Be kind.", instructions="Do.")
    assert [message["content"] for message in messages] == ["Be kind.\n\nDo.", "Hi"]
    assert converter.to_messages(history, native_tools=False) == [{"role": "user", "content": "Hi"}]


def test_instructions_contain_each_tool() -> None:
    tool = Tool.from_dict({"function": {"name": "add", "description": "Adds"}})
    assert '{"name": "add", "description": "Adds"}' in converter.tool_instructions([tool])
