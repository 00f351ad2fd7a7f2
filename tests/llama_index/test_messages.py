"""LlamaIndex's messages in wire form."""

import base64
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from lmstudio_integrations._adapters.request_messages import Attachments, ImageSource, encode
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError
from lmstudio_integrations.llama_index._messages import convert
from tests.support.web import PIXEL

PNG_URL = "data:image/png;base64," + base64.b64encode(PIXEL).decode()


def wire(*messages: ChatMessage) -> list[dict[str, Any]]:
    """Return messages in wire form."""
    found: list[dict[str, Any]] = encode(convert(messages), {}).to_dict()["messages"]
    return found


def text_message(role: str, *texts: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}


def user(*blocks: Any) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, blocks=list(blocks))


def assistant(*blocks: Any, **kwargs: Any) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=list(blocks), additional_kwargs=kwargs)


def result(text: str, call_id: str | None = "c1") -> ChatMessage:
    kwargs = {} if call_id is None else {"tool_call_id": call_id}
    return ChatMessage(role=MessageRole.TOOL, content=text, additional_kwargs=kwargs)


def images_in(*blocks: Any) -> list[ImageSource]:
    return Attachments.of(convert([user(*blocks)])).images


@pytest.mark.parametrize(
    ("role", "on_the_wire"),
    [
        ("system", "system"),
        ("developer", "system"),
        ("user", "user"),
        ("assistant", "assistant"),
        ("chatbot", "assistant"),
        ("model", "assistant"),
    ],
)
def test_every_role_has_one_on_the_wire(role: str, on_the_wire: str) -> None:
    assert wire(ChatMessage(role=MessageRole(role), content="hi")) == [text_message(on_the_wire, "hi")]


@pytest.mark.parametrize("role", ["tool", "function"])
def test_tool_results_keep_their_identifier(role: str) -> None:
    message = ChatMessage(role=MessageRole(role), content="3", additional_kwargs={"tool_call_id": "c1"})
    assert wire(message) == [
        {"role": "tool", "content": [{"type": "toolCallResult", "content": "3", "toolCallId": "c1"}]}
    ]


def test_several_texts_of_a_message_are_joined_as_its_content_is() -> None:
    message = user(TextBlock(text="a"), TextBlock(text="b"))
    assert wire(message) == [text_message("user", message.content or "")]


def test_calls_and_their_results_belong_together() -> None:
    call = ToolCallBlock(tool_call_id="c1", tool_name="Box[int]", tool_kwargs={"a": 1})
    found = wire(user(TextBlock(text="hi")), assistant(TextBlock(text="so"), call), result("3"))
    request = {"type": "function", "name": "Box_int_", "arguments": {"a": 1}, "id": "c1"}
    assert found[1]["content"] == [
        {"type": "text", "text": "so"},
        {"type": "toolCallRequest", "toolCallRequest": request},
    ]
    assert found[2]["content"] == [{"type": "toolCallResult", "content": "3", "toolCallId": "c1", "name": "Box_int_"}]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        *((empty, {}) for empty in ("", "null", "{")),
        ('{"to": "Oslo", "at": "no', {"to": "Oslo", "at": "no"}),
        *((text, {"arguments": text}) for text in ("[1]", '"text"', "to: Oslo")),
    ],
)
def test_stored_arguments_are_kept_also_if_they_are_cut_or_no_object(arguments: str, sent: dict[str, Any]) -> None:
    call = ToolCallBlock(tool_call_id="c1", tool_name="now", tool_kwargs=arguments)
    assert wire(assistant(call))[0]["content"][0]["toolCallRequest"]["arguments"] == sent


CALLS_OF_OLDER_HISTORIES: dict[str, Any] = {
    "OpenAI": {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
    "OpenAI's object": SimpleNamespace(id="c1", function=SimpleNamespace(name="add", arguments='{"a": 1}')),
    "Ollama": {"id": "c1", "function": {"name": "add", "arguments": {"a": 1}}},
    "Gemini's object": SimpleNamespace(id="c1", name="add", args={"a": 1}),
    "Anthropic": {"id": "c1", "type": "tool_use", "name": "add", "input": {"a": 1}},
    "Bedrock": {"toolUseId": "c1", "name": "add", "input": {"a": 1}},
}


@pytest.mark.parametrize("call", CALLS_OF_OLDER_HISTORIES.values(), ids=CALLS_OF_OLDER_HISTORIES)
def test_calls_of_older_histories_are_converted(call: Any) -> None:
    (message,) = wire(assistant(TextBlock(text=""), tool_calls=[call]))
    request = message["content"][-1]["toolCallRequest"]
    assert request == {"type": "function", "name": "add", "arguments": {"a": 1}, "id": "c1"}


def test_a_call_that_is_a_block_and_in_the_kwargs_is_sent_once() -> None:
    legacy = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    (message,) = wire(assistant(ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs={}), tool_calls=[legacy]))
    assert len(message["content"]) == 1


def test_a_message_of_calls_alone_has_no_text() -> None:
    (message,) = wire(assistant(TextBlock(text=""), ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs={})))
    assert [part["type"] for part in message["content"]] == ["toolCallRequest"]


def test_a_returned_tool_output_is_an_assistant_message() -> None:
    returned = ChatMessage(role=MessageRole.ASSISTANT, content="3", additional_kwargs={"tool_call_id": "c1"})
    assert wire(returned) == [text_message("assistant", "3")]


def test_a_message_of_reasoning_alone_is_not_sent() -> None:
    found = wire(user(TextBlock(text="a")), assistant(ThinkingBlock(content="hm")), user(TextBlock(text="b")))
    assert found == [text_message("user", "a\n\nb")]


def test_images_are_read_in_every_form(tmp_path: Path) -> None:
    file = tmp_path / "dot.png"
    file.write_bytes(PIXEL)
    assert images_in(ImageBlock(path=file)) == [ImageSource(path=file)]
    blocks = [
        ImageBlock(image=PIXEL),
        ImageBlock(image=base64.b64encode(PIXEL)),
        ImageBlock(image=BytesIO(PIXEL)),
        ImageBlock(url=PNG_URL),
    ]
    for block in blocks:
        assert images_in(block) == [ImageSource(PIXEL)], block


def test_a_stream_is_read_again_for_the_next_turn() -> None:
    block = ImageBlock(image=BytesIO(PIXEL))
    assert images_in(block) == images_in(block)


def test_an_empty_image_block_is_rejected() -> None:
    with pytest.raises(LMStudioValueError, match="needs an image, a path or a URL"):
        convert([user(ImageBlock())])


@pytest.mark.parametrize("data", [b"Rain in Oslo.", BytesIO(b"Rain in Oslo.")])
def test_a_document_of_text_is_sent_as_text(data: Any) -> None:
    assert wire(user(DocumentBlock(data=data))) == [text_message("user", "Rain in Oslo.")]


def test_a_document_is_sent_under_its_title(tmp_path: Path) -> None:
    file = tmp_path / "rain.md"
    file.write_text("Rain in Oslo.", encoding="utf-8")
    assert wire(user(DocumentBlock(path=file, title="Weather"))) == [text_message("user", "Weather\n\nRain in Oslo.")]


def test_a_document_that_is_not_text_is_rejected() -> None:
    with pytest.raises(LMStudioValueError, match="is not text; extract its text first"):
        convert([user(DocumentBlock(data=b"%PDF-1.7 \xff\xfe", document_mimetype="application/pdf"))])


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        (DocumentBlock(url="https://example.org/a.txt"), "is on the web; fetch it"),
        (DocumentBlock(document_mimetype="text/plain"), "is empty"),
        (DocumentBlock(data=b"", title="Rain"), "'Rain' has no readable content.*pass its data or a path"),
        (DocumentBlock(url="data:text/plain;base64,abcde"), "no readable content"),
    ],
)
def test_a_document_on_the_web_or_without_content_is_rejected(block: DocumentBlock, complaint: str) -> None:
    with pytest.raises(LMStudioValueError, match=complaint):
        convert([user(block)])


def test_what_a_tool_returned_is_text_an_address_or_a_note() -> None:
    blocks: list[Any] = [
        DocumentBlock(url="https://example.org/a.csv", title="Rain"),
        DocumentBlock(data=b"city,mm\nOslo,3", document_mimetype="text/csv"),
        DocumentBlock(data=b"%PDF-1.7 \xff", document_mimetype="application/pdf"),
        DocumentBlock(document_mimetype="text/plain"),
        DocumentBlock(url="data:text/plain;base64,abcde"),
        AudioBlock(audio=b"RIFF0000WAVE"),
    ]
    (found,) = wire(ChatMessage(role=MessageRole.TOOL, blocks=blocks, additional_kwargs={"tool_call_id": "c1"}))
    link, table, head, pdf, empty, broken, audio = found["content"][0]["content"].split("\n")
    assert link == "Rain: https://example.org/a.csv"
    assert (table, head) == ("city,mm", "Oslo,3")
    assert pdf == "[file (application/pdf, 10 bytes): not shown, because it is not text]"
    assert empty == "[file (text/plain): not shown, because it has no content]"
    assert broken.startswith("[DocumentBlock: not shown, because ")
    assert audio.startswith("[AudioBlock: not shown, because LM Studio does not accept audio")


def test_a_missing_document_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rain.md"
    file.touch()
    block = DocumentBlock(path=file, document_mimetype="text/markdown")
    file.unlink()
    with pytest.raises(LMStudioOSError, match=r"rain\.md"):
        convert([user(block)])


def test_citable_and_cited_content_is_sent() -> None:
    citable = CitableBlock(title="t", source="s", content=[TextBlock(text="one")])
    citation = CitationBlock(
        cited_content=TextBlock(text="two"), source="s", title="t", additional_location_info={"page": 1}
    )
    assert wire(user(citable, citation)) == [text_message("user", "one\ntwo")]


def test_a_call_in_a_user_message_is_rejected() -> None:
    with pytest.raises(LMStudioValueError, match="a user message cannot hold a call"):
        convert([user(ToolCallBlock(tool_name="add"))])


def test_blocks_of_derived_classes_are_converted() -> None:
    class Note(TextBlock):
        """A text of the user's own kind."""

    assert wire(user(Note(text="hi"))) == [text_message("user", "hi")]


def test_a_block_of_unknown_type_is_rejected() -> None:
    message = ChatMessage.model_construct(role=MessageRole.USER, blocks=[object()], additional_kwargs={})
    with pytest.raises(LMStudioValueError, match="does not accept a object in a user message"):
        convert([message])


def test_an_empty_list_of_messages_is_rejected() -> None:
    with pytest.raises(LMStudioValueError, match="the list of messages is empty"):
        convert([])


@pytest.mark.parametrize(
    "message",
    [
        assistant(tool_calls=[{"id": 5, "function": {"name": "add"}}]),
        ChatMessage(role="tool", additional_kwargs={"tool_call_id": 5}),
    ],
)
def test_an_identifier_that_is_no_string_is_rejected(message: ChatMessage) -> None:
    with pytest.raises(LMStudioValueError, match="must be a string; got 5"):
        convert([message])


def test_a_call_without_a_name_is_rejected() -> None:
    with pytest.raises(LMStudioValueError, match="has no name"):
        convert([assistant(tool_calls=[{"id": "c1"}])])
