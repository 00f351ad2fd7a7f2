"""Content blocks with members of wrong types: a clear error in a message of the user, and none in what was returned."""

import base64
import itertools
from collections.abc import Callable, Iterator
from io import BytesIO, StringIO
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)

from lmstudio_integrations._adapters.request_messages import PendingMessage, history_of
from lmstudio_integrations._support.text import dumps
from lmstudio_integrations.client.files.uploads import PendingHistory
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError
from lmstudio_integrations.langchain import ChatLMStudio, _messages
from lmstudio_integrations.llama_index import _messages as _llama_index_messages
from lmstudio_integrations.types.files import FileHandle

PNG = b"\x89PNG\r\n\x1a\npicture"
BASE64 = base64.b64encode(PNG).decode()
HANDLE = FileHandle(name="a.png", identifier="f1", size_bytes=9, file_type="image")

NESTED: list[Any] = []
for _ in range(5_000):
    NESTED = [NESTED]
CIRCULAR: dict[str, Any] = {}
CIRCULAR["a"] = CIRCULAR
CLOSED = BytesIO(b"x")
CLOSED.close()

ODD: list[Any] = [
    *(None, 5, float("nan"), True, 10**5_000, b"x", b"\xff", "", "x", "\ud800", "\0", object(), object, {"x"}, (1,)),
    *([], ["x"], {}, {"a": 1}, {1: 2}, {b"k": object()}, NESTED, CIRCULAR),
    *({"url": 5}, {"url": b"x"}, {"type": []}, {"data": 5}, {"base64": b"\xff"}, {"path": 5}),
    {"media_type": b"x", "data": "eA=="},
]

BLOCKS: list[dict[str, Any]] = [
    {"type": "text", "text": "a"},
    {"type": "refusal", "refusal": "no"},
    {"type": "reasoning", "reasoning": "a", "extras": {"reasoning_tags": []}},
    {"type": "thinking", "thinking": "a"},
    {"type": "image", "base64": BASE64, "mime_type": "image/png"},
    {"type": "image", "data": PNG},
    {"type": "image", "path": "a.png"},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}},
    {"type": "file", "base64": "eA==", "mime_type": "text/plain", "filename": "a"},
    {"type": "file", "file": {"file_data": "data:text/plain;base64,eA==", "filename": "a"}},
    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}, "title": "t"},
    {"type": "resource", "resource": {"uri": "mcp://r", "text": "b", "mimeType": "text/plain"}},
    {"type": "audio", "base64": "eA=="},
    {"type": "video", "url": "u"},
    {"type": "tool_use", "name": "f", "id": "1", "input": {}},
    {"type": "tool_result", "tool_use_id": "1", "content": "x", "is_error": False},
    {"type": "json", "json": {}},
    HANDLE.to_dict(),
]

MESSAGES: dict[str, Callable[[Any], list[BaseMessage]]] = {
    "user": lambda block: [HumanMessage([block])],
    "system": lambda block: [SystemMessage([block])],
    "assistant": lambda block: [HumanMessage("q"), AIMessage([block])],
    "tool": lambda block: [HumanMessage("q"), ToolMessage([block], tool_call_id="1")],
    "tool result": lambda block: [HumanMessage([{"type": "tool_result", "tool_use_id": "1", "content": [block]}])],
}


def changed(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a block without each of its members, and with odd values in their places."""
    for name in {**block, **dict.fromkeys(("url", "path", "source", "mime_type", "filename", "identifier"))}:
        yield {each: value for each, value in block.items() if each != name}
        yield from ({**block, name: odd} for odd in ODD)
        inner = block.get(name)
        if isinstance(inner, dict):
            yield from ({**block, name: {**inner, each: odd}} for each, odd in itertools.product(inner, ODD))


def send(pending: list[PendingMessage]) -> None:
    """Write a conversation as the wire gets it, with its images uploaded."""
    history = history_of(pending, {"allow_image_download": False})
    if isinstance(history, PendingHistory):
        history = history.encode([HANDLE] * len(history.images))
    dumps(history.to_dict())


def is_rejected(convert: Callable[[], list[PendingMessage]]) -> bool:
    """Whether a conversation is an error of this package, which says no more than it should."""
    try:
        send(convert())
    except (LMStudioValueError, LMStudioOSError) as error:
        return "[type=" not in str(error) or pytest.fail(str(error))
    return False


@pytest.mark.parametrize("role", MESSAGES)
@pytest.mark.parametrize("block", BLOCKS, ids="-".join)
def test_no_member_of_a_block_leads_to_an_error_of_another_kind(block: dict[str, Any], role: str) -> None:
    for odd in changed(block):
        rejected = is_rejected(lambda odd=odd: _messages.convert(MESSAGES[role](odd)))  # type: ignore[misc]
        assert not (rejected and role.startswith("tool"))


LLAMA_INDEX_BLOCKS: list[Any] = [
    TextBlock(text="a"),
    ImageBlock(image=PNG),
    DocumentBlock(data=b"x", title="t"),
    AudioBlock(audio=b"x"),
    VideoBlock(video=b"x"),
    CitableBlock(title="t", source="s", content=[TextBlock(text="a")]),
    CitationBlock(cited_content=TextBlock(text="a"), source="s", title="t", additional_location_info={}),
    ThinkingBlock(content="a", additional_information={"reasoning_tags": []}),
    ToolCallBlock(tool_call_id="1", tool_name="f", tool_kwargs={}),
]


@pytest.mark.parametrize("role", ["user", "system", "assistant", "tool"])
@pytest.mark.parametrize("block", LLAMA_INDEX_BLOCKS, ids=lambda block: type(block).__name__)
def test_no_value_that_a_block_takes_leads_to_an_error_of_another_kind(block: Any, role: str) -> None:
    kind = type(block)
    odd_values: list[Any] = [*ODD, CLOSED, StringIO("x"), BytesIO()]
    for name, odd in itertools.product(kind.model_fields, odd_values):
        made = with_member(block, name, odd)
        if made is not None:
            message = ChatMessage(blocks=[made], role=role, additional_kwargs={"tool_call_id": "1"})
            rejected = is_rejected(lambda message=message: _llama_index_messages.convert([message]))  # type: ignore[misc]
            assert not (rejected and role == "tool")


def with_member(block: Any, name: str, value: object) -> Any:
    """Return a block with another value, if core accepts it."""
    kind = type(block)
    given = {name: getattr(block, name) for name in kind.model_fields if getattr(block, name) is not None}
    try:
        return kind(**{**given, name: value})
    except (OSError, ValueError, RecursionError, TypeError, AttributeError):
        return None


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        (
            {"type": "file", "identifier": "x"},
            (
                "a block with the identifier of a file must be its whole handle, handle.to_dict(); fileType, name, "
                "sizeBytes is missing or invalid"
            ),
        ),
        (
            {"type": "file", "data": b"a,b", "media_type": b"text/csv"},
            "the mime_type of a content block must be a string; got b'text/csv'",
        ),
        ({"type": 5, "a": 1}, "a content block of type 5 in a user message"),
        ({"type": "image", "data": 5}, "an image's data must be base64 or bytes; got 5"),
        ({"type": "image", b"x": 5, "y": 5}, "it has [\"b'x'\", 'type', 'y']"),
    ],
)
def test_the_error_names_what_is_wrong_with_a_block(block: dict[Any, Any], problem: str) -> None:
    with Emulator([ModelEntry(key="m")]) as server, pytest.raises(LMStudioValueError) as caught:
        ChatLMStudio(model="m", host=server.address).invoke([HumanMessage([block])])
    assert problem in str(caught.value)
