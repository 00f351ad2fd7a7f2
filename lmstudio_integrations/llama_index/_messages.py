"""LlamaIndex's messages as a conversation on its way to the wire. Pure; see `_adapters/request_messages.py`."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from io import IOBase
from typing import Any, TypeAlias, cast

from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)

from lmstudio_integrations._adapters.request_messages import (
    NO_MESSAGES,
    NO_PATHS,
    RETURNED,
    TAGS,
    Conversation,
    ImageSource,
    Part,
    PendingMessage,
    Role,
    document_text,
    joined,
    not_shown,
    response_parts,
    stored_arguments,
    text_of,
)
from lmstudio_integrations._support.secrets import redacted_url
from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.client.files.uploads import decode_data_url, is_base64_url
from lmstudio_integrations.errors import LMStudioError, LMStudioOSError, LMStudioValueError
from lmstudio_integrations.types.files import image_format

_ROLES: dict[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}

_DEFAULT_TITLE = "input_document"
"""The title that LlamaIndex gives a document that has none."""


def convert(messages: Sequence[ChatMessage]) -> list[PendingMessage]:
    """Convert messages.

    Args:
        messages: The conversation.

    Raises:
        LMStudioValueError: If there is no message, or one with a block that cannot be sent.
        LMStudioOSError: If a file cannot be read.
    """
    if not messages:
        raise LMStudioValueError(NO_MESSAGES)
    conversation = Conversation()
    for message in messages:
        role = _ROLES[message.role]
        if role == "tool":
            parts, others = _join(message.blocks, "tool"), message.additional_kwargs
            conversation.add_result(text_of(parts, "\n"), others.get("tool_call_id"), others.get("name"), parts)
        elif role == "assistant":
            _add_response(conversation, message)
        else:
            parts = _join(message.blocks, role)
            if "images" in message.additional_kwargs:  # core adds them again each time it reads an older history
                parts = [part for index, part in enumerate(parts) if part not in parts[:index]]
            conversation.add(role, parts or [""], message.additional_kwargs.get("name"))
    return conversation.finish()


def _add_response(conversation: Conversation, message: ChatMessage) -> None:
    parts = _join([block for block in message.blocks if not isinstance(block, ToolCallBlock)], "assistant")
    thoughts = [block for block in message.blocks if isinstance(block, ThinkingBlock)]
    tags_of_blocks = [block.additional_information.get(TAGS, []) for block in thoughts]
    # Of a stream that was left in a later thought, nobody knows where the thoughts end.
    reasoning = "" if None in tags_of_blocks else "".join(block.content or "" for block in thoughts)
    tags = [each for tags_of_block in tags_of_blocks if is_list(tags_of_block) for each in tags_of_block]
    calls = _calls(message)
    if parts or calls:  # thoughts alone are no turn
        parts = response_parts(parts, reasoning, tags)
        conversation.add("assistant", parts, message.additional_kwargs.get("name"))
    for name, call_id, arguments in calls:
        conversation.add_call(name, call_id, arguments)


# Tool calls ---------------------------------------------------------------------------------------------------------

_ToolCall: TypeAlias = tuple[str, str | None, dict[str, Any]]


def _calls(message: ChatMessage) -> list[_ToolCall]:
    """Return the tool calls of a message: its blocks, and those of older histories, each once."""
    calls: list[_ToolCall] = [
        (block.tool_name, block.tool_call_id, stored_arguments(block.tool_kwargs))
        for block in message.blocks
        if isinstance(block, ToolCallBlock)
    ]
    if calls:
        return calls
    legacy = message.additional_kwargs.get("tool_calls")
    return [_legacy_call(call) for call in legacy] if is_list(legacy) else []


def _legacy_call(call: object) -> _ToolCall:
    """Read a call in the form of OpenAI, Gemini, Anthropic or Bedrock, as a dict or as an object."""
    function = _member(call, "function")
    source = function if function is not None else call
    name = _member(source, "name")
    if not isinstance(name, str):
        raise LMStudioValueError(f"a tool call in additional_kwargs has no name: {shown(call)}")
    arguments = (_member(source, each) for each in ("arguments", "args", "input"))
    given = next((each for each in arguments if each is not None), None)
    return name, _member(call, "id") or _member(call, "toolUseId"), stored_arguments(given)


def _member(value: object, name: str) -> Any:
    return value.get(name) if is_object(value) else getattr(value, name, None)


# Blocks -------------------------------------------------------------------------------------------------------------


def _parts(blocks: Sequence[Any], role: Role) -> list[Part]:
    parts: list[Part] = []
    for block in blocks:
        try:
            parts += _read(block, role)
        except LMStudioError as error:
            if role not in RETURNED:
                raise
            parts.append(not_shown(type(block).__name__, error))
    return parts


def _read(block: object, role: Role) -> list[Part]:
    """Read a block.

    Raises:
        LMStudioValueError: If it cannot be sent.
        LMStudioOSError: If its file cannot be read.
    """
    convert = next((_BLOCKS[base] for base in type(block).__mro__ if base in _BLOCKS), _reject)
    return convert(block, role)


def _join(blocks: Sequence[Any], role: Role) -> list[Part]:
    """Convert blocks; neighboring texts are joined as `ChatMessage.content` does."""
    return joined(_parts(blocks, role), "\n")


def _image_source(block: ImageBlock) -> ImageSource:
    """Read an image; LlamaIndex keeps its bytes as base64."""
    if isinstance(block.image, bytes):
        image = ImageSource.from_base64(block.image)
        if image_format(image.data) is None:  # core encodes base64 that is URL-safe, or not padded, once more
            with suppress(LMStudioValueError):
                inner = ImageSource.from_base64(image.data)
                return image if image_format(inner.data) is None else inner
        return image
    if block.image is not None:
        return ImageSource(_content_of(block.image))
    if block.path is not None:
        return ImageSource.from_path(block.path)
    if block.url is not None:
        return ImageSource.from_url(str(block.url))
    raise LMStudioValueError("an ImageBlock needs an image, a path or a URL; it has none of them")


def _content_of(file: IOBase) -> bytes:
    try:
        file.seek(0)
        content: object = cast("Any", file).read()
    except (OSError, ValueError) as error:  # it may be closed
        raise LMStudioOSError(f"cannot read the file of an ImageBlock: {error}") from error
    if not isinstance(content, bytes):
        raise LMStudioValueError("the file of an ImageBlock must be open in binary mode")
    return content


def _document(block: DocumentBlock, role: Role) -> list[Part]:
    """Read a document that is text; its title stands above it. What was returned may also be an address or a note."""
    url = None if block.data is not None or block.path is not None else block.url or ""
    title = None if block.title == _DEFAULT_TITLE else block.title
    if url is not None and not url.startswith("data:"):
        if role in RETURNED:
            return [document_text(data=None, url=url, mime_type=block.document_mimetype, name=title)]
        if url:
            raise LMStudioValueError(
                f"the document {redacted_url(url)} is on the web; fetch it and pass its data or a path"
            )
        raise LMStudioValueError("a DocumentBlock is empty; pass its data or a path")
    if block.data is None and block.path is not None and role in RETURNED:
        raise LMStudioValueError(NO_PATHS)
    name = str(block.path or block.title)
    try:
        # Core drops the characters of base64 that it does not know.
        content = decode_data_url(url) if url and is_base64_url(url) else block.resolve_document().read()
        if role in RETURNED and isinstance(content, bytes):
            text = document_text(data=content, url=None, mime_type=block.document_mimetype, name=title)
        else:
            text = content.decode("utf-8") if isinstance(content, bytes) else str(content)
    except UnicodeDecodeError as error:
        raise LMStudioValueError(
            f"the document {name!r} ({block.document_mimetype}) is not text; extract its text first, "
            "for example with a LlamaIndex reader"
        ) from error
    except OSError as error:
        raise LMStudioOSError(f"cannot read the document {name!r}: {error}") from error
    except ValueError as error:
        raise LMStudioValueError(
            f"the document {name!r} has no readable content ({error}); pass its data or a path"
        ) from error
    return [f"{title}\n\n{text}" if title else text]


def _reject(block: object, role: Role) -> list[Part]:
    if isinstance(block, ToolCallBlock):
        raise LMStudioValueError(f"a {role} message cannot hold a call of the tool {block.tool_name!r}")
    if isinstance(block, AudioBlock | VideoBlock):
        kind = "audio" if isinstance(block, AudioBlock) else "video"
        raise LMStudioValueError(
            f"LM Studio does not accept {kind} in a {role} message; transcribe or describe it first"
        )
    raise LMStudioValueError(
        f"LM Studio does not accept a {type(block).__name__} in a {role} message, only text, images and documents that "
        "are text"
    )


_BLOCKS: dict[type[Any], Callable[[Any, Role], list[Part]]] = {
    TextBlock: lambda block, _role: [block.text],
    ImageBlock: lambda block, role: [_image_source(block).for_role(role)],
    DocumentBlock: _document,
    CitableBlock: lambda block, role: _parts(block.content, role),
    CitationBlock: lambda block, role: _parts([block.cited_content], role),
    CachePoint: lambda _block, _role: [],
    ThinkingBlock: lambda _block, _role: [],
}
