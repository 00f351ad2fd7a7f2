"""LangChain's messages on the wire."""

import base64
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.content import create_file_block

from lmstudio_integrations._adapters.request_messages import Attachments, ImageSource, encode
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain._messages import convert
from lmstudio_integrations.types.files import FileHandle

IMAGE = b"\x89PNG\r\n\x1a\npicture"
BASE64 = base64.b64encode(IMAGE).decode()


def wire(messages: Sequence[BaseMessage], *, system_first: bool = False) -> list[dict[str, Any]]:
    """Return the wire form, with every image uploaded under its place in the order."""
    pending = convert(messages)
    handles = {
        source: FileHandle(name="i.png", identifier=f"file-{n}", size_bytes=1, file_type="image")
        for n, source in enumerate(Attachments.of(pending).images)
    }
    history = encode(pending, handles)
    return history.messages if history.system_first is None or not system_first else history.system_first


def text(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": content}]}


def result(content: str, call_id: str | None = None, name: str | None = None) -> dict[str, Any]:
    fields = {"type": "toolCallResult", "content": content, "toolCallId": call_id, "name": name}
    return {key: value for key, value in fields.items() if value is not None}


def request(name: str, arguments: dict[str, Any], call_id: str | None = None) -> dict[str, Any]:
    call: dict[str, Any] = {"type": "function", "name": name, "arguments": arguments}
    if call_id is not None:
        call["id"] = call_id
    return {"type": "toolCallRequest", "toolCallRequest": call}


def test_each_kind_of_message_has_its_role() -> None:
    assert wire([SystemMessage("be brief"), HumanMessage("hi"), AIMessage("hello"), HumanMessage("bye")]) == [
        text("system", "be brief"),
        text("user", "hi"),
        text("assistant", "hello"),
        text("user", "bye"),
    ]


def test_neighbors_of_one_role_are_merged_and_system_messages_come_first_where_the_template_requires_it() -> None:
    messages: list[BaseMessage] = [HumanMessage("a"), SystemMessage("s1"), HumanMessage("b")]
    messages += [AIMessage("c"), AIMessage("d")]
    messages += [SystemMessage("s2"), HumanMessage("e")]
    assert [message["role"] for message in wire(messages)] == [
        "user", "system", "user", "assistant", "system", "user",
    ]  # fmt: skip
    assert wire(messages)[3:5] == [text("assistant", "c\n\nd"), text("system", "s2")]
    assert wire(messages, system_first=True) == [
        text("system", "s1\n\ns2"),
        text("user", "a\n\nb"),
        text("assistant", "c\n\nd"),
        text("user", "e"),
    ]


def test_texts_of_one_message_are_joined_without_a_separator() -> None:
    content: list[Any] = ["a", {"type": "text", "text": "b"}]
    assert wire([HumanMessage(content)]) == [text("user", "ab")]
    content.append({"type": "text-plain", "text": "a file"})
    assert wire([HumanMessage(content)]) == [text("user", "a\n\nb\n\na file")]


def test_tool_calls_and_their_results_keep_ids_and_names() -> None:
    call = {"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}
    messages = [HumanMessage("q"), AIMessage("let me see", tool_calls=[call]), ToolMessage("3", tool_call_id="c1")]
    assert wire(messages) == [
        text("user", "q"),
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "let me see"}, request("add", {"a": 1}, "c1")],
        },
        {"role": "tool", "content": [result("3", "c1", "add")]},
    ]


@pytest.mark.parametrize(("content", "sent"), [("no such file", "Error: no such file"), ("Error: x", "Error: x")])
def test_the_result_of_a_failed_tool_begins_with_error(content: str, sent: str) -> None:
    messages = [HumanMessage("q"), ToolMessage(content, tool_call_id="a", status="error")]
    assert wire(messages)[1]["content"] == [result(sent, "a")]


def test_anthropic_calls_and_results_in_content_are_converted() -> None:
    messages = [
        HumanMessage("q"),
        AIMessage(
            [{"type": "text", "text": "hm"}, {"type": "tool_use", "id": "t", "name": "pick", "input": '{"c": 1'}]
        ),
        HumanMessage(
            [
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "ok"}]},
                {"type": "tool_result", "tool_use_id": "u", "content": "bad", "is_error": True},
                {"type": "text", "text": "and now?"},
            ]
        ),
    ]
    assert wire(messages)[1:] == [
        {"role": "assistant", "content": [{"type": "text", "text": "hm"}, request("pick", {"c": 1}, "t")]},
        {"role": "tool", "content": [result("ok", "t", "pick"), result("Error: bad", "u")]},
        text("user", "and now?"),
    ]


def test_an_invalid_call_is_sent_only_if_it_has_a_result() -> None:
    bad = [
        {"name": "f", "args": '{"a": "b', "id": id_, "error": None, "type": "invalid_tool_call"} for id_ in ("1", "2")
    ]
    messages = [HumanMessage("q"), AIMessage("", invalid_tool_calls=bad), ToolMessage("Error", tool_call_id="2")]
    assert wire(messages)[1:] == [
        {"role": "assistant", "content": [request("f", {"a": "b"}, "2")]},
        {"role": "tool", "content": [result("Error", "2", "f")]},
    ]


@pytest.mark.parametrize(
    ("role", "sent"), [("developer", "system"), ("user", "user"), ("assistant", "assistant"), ("human", "user")]
)
def test_chat_messages_are_converted_by_role(role: str, sent: str) -> None:
    assert wire([ChatMessage(content="x", role=role)]) == [text(sent, "x")]


def test_function_messages_are_tool_results() -> None:
    assert wire([HumanMessage("q"), FunctionMessage(content="3", name="add")])[1]["content"] == [
        result("3", name="add")
    ]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}},
        {"type": "image_url", "image_url": f"data:image/png;base64,{BASE64}"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{BASE64}"},
        {"type": "image", "base64": BASE64, "mime_type": "image/png"},
        {"type": "image", "source_type": "base64", "data": BASE64, "mime_type": "image/png"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}},
        {"type": "image", "data": IMAGE},
        {"type": "image_url", "image_url": {"url": "https://h/a.png"}},
        {"type": "image", "source_type": "url", "url": "https://h/a.png"},
        {"type": "image", "source": {"type": "url", "url": "https://h/a.png"}},
    ],
)
def test_images_are_read_in_every_form_and_not_downloaded(block: dict[str, Any]) -> None:
    pending = convert([HumanMessage([{"type": "text", "text": "what?"}, block])])
    source = ImageSource(url="https://h/a.png") if "https" in str(block) else ImageSource(IMAGE)
    assert Attachments.of(pending).images == [source]


def test_the_same_image_is_uploaded_once() -> None:
    block = {"type": "image", "base64": BASE64}
    sent = wire([HumanMessage([block, "twice", block])])
    handle = {"type": "file", "name": "i.png", "identifier": "file-0", "sizeBytes": 1, "fileType": "image"}
    assert sent == [{"role": "user", "content": [handle, {"type": "text", "text": "twice"}, handle]}]


def test_an_uploaded_file_is_sent_as_its_handle() -> None:
    handle = FileHandle(name="a.png", identifier="f1", size_bytes=9, file_type="image")
    assert wire([HumanMessage(["look", handle.to_dict()])])[0]["content"][1] == handle.to_dict()


def test_blocks_of_other_providers_are_skipped() -> None:
    content: list[Any] = [
        {"type": "server_tool_call", "id": "1", "name": "search", "args": {}},
        {"type": "non_standard", "value": {}},
        {"type": "code_interpreter_call", "id": "2", "code": "1 + 1"},
        {"type": "executable_code", "executable_code": "1 + 1"},
        {"type": "text", "text": "Found it. "},
        {"cachePoint": {"type": "default"}},
        {"type": "refusal", "refusal": "But no."},
    ]
    assert wire([AIMessage(content)]) == [text("assistant", "Found it. But no.")]


def in_base64(content: str) -> str:
    return base64.b64encode(content.encode()).decode()


TABLE = "stadt,gruß\nÅl,1"
FILES: list[dict[str, Any]] = [
    {"type": "text-plain", "base64": in_base64(TABLE), "mime_type": "text/plain"},
    {"type": "file", "base64": in_base64(TABLE), "mime_type": "text/csv; charset=utf-8"},
    {"type": "file", "base64": in_base64("\ufeff" + TABLE), "mime_type": "application/octet-stream"},
    {"type": "file", "source_type": "text", "text": TABLE},
    {"type": "file", "file": {"file_data": f"data:text/plain;base64,{in_base64(TABLE)}", "filename": "a.txt"}},
    {"type": "input_file", "file_data": f"data:image/svg+xml;base64,{in_base64(TABLE)}"},
    {"type": "document", "source": {"type": "base64", "media_type": "text/html", "data": in_base64(TABLE)}},
    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": TABLE}},
    {"type": "file", "url": f"data:text/markdown;base64,{in_base64(TABLE)}"},
]


@pytest.mark.parametrize("block", FILES)
def test_a_file_of_a_text_type_is_text(block: dict[str, Any]) -> None:
    assert wire([HumanMessage([block])]) == [text("user", TABLE)]
    assert wire([HumanMessage("q"), ToolMessage([block], tool_call_id="1")])[1]["content"] == [result(TABLE, "1")]


@pytest.mark.parametrize(
    ("block", "sent"),
    [
        (create_file_block(url="mcp://r/1", mime_type="application/pdf"), "mcp://r/1"),
        (create_file_block(url="https://h/a.txt", filename="a.txt"), "a.txt: https://h/a.txt"),
        ({"type": "resource_link", "uri": "mcp://r/2", "name": "r"}, "r: mcp://r/2"),
        (
            create_file_block(base64=BASE64, mime_type="application/pdf", filename="a.pdf"),
            "[a.pdf (application/pdf, 15 bytes): not shown, because it is not text]",
        ),
        (
            create_file_block(base64=BASE64, mime_type="text/csv"),
            "[file (text/csv, 15 bytes): not shown, because it is not text]",
        ),
        ({"type": "audio", "base64": BASE64}, "[file (unknown type, 15 bytes): not shown, because it is not text]"),
        (create_file_block(file_id="f1"), "[file (unknown type): not shown, because it has no content]"),
        (
            {"type": "file", "base64": "ä", "mime_type": "text/csv"},
            "[file: not shown, because its content is not base64: it contains 'ä']",
        ),
        (
            {"type": "image", "base64": "ä"},
            "[image: not shown, because the image's data is not base64: it contains 'ä']",
        ),
        ({"type": "video"}, '{"type": "video"}'),
    ],
)
def test_no_file_that_a_tool_returned_is_an_error(block: dict[str, Any], sent: str) -> None:
    message = ToolMessage([{"type": "text", "text": "here"}, block], tool_call_id="1")
    assert wire([HumanMessage("q"), message])[1]["content"] == [result(f"here\n{sent}", "1")]


def test_blocks_of_one_result_stay_apart_and_data_is_json() -> None:
    data = [{"name": "Ann"}, {"type": "json", "json": {"a": "ä"}}, {"type": "search_result", "title": "T"}]
    blocks: list[Any] = [{"type": "text", "text": "apple"}, "banana", *data]
    anthropic: Any = {"type": "tool_result", "tool_use_id": "2", "content": blocks}
    messages = [HumanMessage("q"), ToolMessage(blocks, tool_call_id="1"), HumanMessage([anthropic])]
    sent = 'apple\nbanana\n{"name": "Ann"}\n{"a": "ä"}\n{"type": "search_result", "title": "T"}'
    assert wire(messages)[1]["content"] == [result(sent, "1"), result(sent, "2")]


@pytest.mark.parametrize("later", [[], [HumanMessage("what is it?")], [AIMessage("a dog")]])
def test_images_that_a_tool_returned_move_to_the_next_user_turn(later: list[BaseMessage]) -> None:
    shown: list[Any] = [{"type": "text", "text": "here"}, {"type": "image", "base64": BASE64}]
    messages = [HumanMessage("q"), ToolMessage(shown, tool_call_id="1"), ToolMessage("done", tool_call_id="2")]
    sent = wire([*messages, *later])
    assert sent[1]["content"] == [result("here", "1"), result("done", "2")]
    assert sent[2]["role"] == "user"
    assert sent[2]["content"][0]["identifier"] == "file-0"
    assert [message["role"] for message in sent[3:]] == (
        ["assistant"] if later and isinstance(later[0], AIMessage) else []
    )


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ([], "the list of messages is empty"),
        ([RemoveMessage(id="1")], "RemoveMessage"),
        ([ChatMessage(content="x", role="judge")], "'judge'"),
        ([HumanMessage([{"type": "audio", "base64": "", "mime_type": "audio/wav"}])], "'audio'.*transcribe or"),
        ([HumanMessage([{"type": "file", "mime_type": "application/pdf", "base64": BASE64}])], "'file'.*extract"),
        ([HumanMessage([{"type": "file", "mime_type": "text/csv", "url": "https://h/a"}])], "'file'.*extract"),
        ([HumanMessage([{"type": "image", "file_id": "x"}])], "an image block needs"),
        ([HumanMessage([{"type": "image", "base64": "x"}])], "not base64"),
        ([HumanMessage([{"type": "reasoning", "reasoning": "x"}])], "'reasoning'"),
        ([HumanMessage([{"type": "text", "text": 5}])], "must hold its text"),
        ([HumanMessage([{"type": "text-plain", "url": "https://h/a.txt", "mime_type": "text/plain"}])], "'text-plain'"),
        ([HumanMessage([{"type": "text-plain", "base64": "ä", "mime_type": "text/plain"}])], "not base64"),
        ([HumanMessage([{"type": "image", "url": "data:image/png;base64,"}])], "image is empty"),
        ([HumanMessage([{"type": "image", "path": 5}])], "path must be a string"),
    ],
)
def test_an_error_names_what_cannot_be_sent(messages: list[BaseMessage], match: str) -> None:
    with pytest.raises(LMStudioValueError, match=match):
        convert(messages)
