"""LlamaIndex's messages to a conversation on its way to the wire. Pure; pictures are only named, not uploaded."""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

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

from lmstudio_integrations._adapters.conversation import Conversation, Draft, ImageSource, Part, Role
from lmstudio_integrations._adapters.schemas import wire_name
from lmstudio_integrations._typeguards import is_list, is_object
from lmstudio_integrations._urls import redacted_url
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError
from lmstudio_integrations.types.chat import TextPart

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


def draft(messages: Sequence[ChatMessage], *, send_reasoning: bool = False) -> list[Draft]:
    """Turn messages into drafts.

    Args:
        messages: The conversation.
        send_reasoning: Whether earlier thoughts of the model are sent back to it, in `<think>` tags.

    Raises:
        LMStudioValueError: If there is no message, or one with a block that cannot be sent.
        LMStudioOSError: If a file cannot be read.
    """
    if not messages:
        raise LMStudioValueError("the list of messages is empty; add a message before asking for an answer")
    conversation = Conversation()
    for message in messages:
        role = _ROLES[message.role]
        if role == "tool":
            _add_result(conversation, message)
        elif role == "assistant":
            _add_answer(conversation, message, send_reasoning=send_reasoning)
        else:
            conversation.add(role, _shown(message, role) or [TextPart(text="")])
    return conversation.finish()


def _add_answer(conversation: Conversation, message: ChatMessage, *, send_reasoning: bool) -> None:
    said = [block for block in message.blocks if not isinstance(block, ThinkingBlock | ToolCallBlock)]
    parts = _joined(_parts(said, "assistant"))
    thoughts = _thoughts(message) if send_reasoning else ""
    if thoughts:
        parts.insert(0, TextPart(text=f"<think>\n{thoughts}\n</think>\n\n"))
    calls = _calls(message)
    if calls:
        parts = [part for part in parts if part != TextPart(text="")]
    if not parts and not calls:
        return
    conversation.add("assistant", parts)
    for name, call_id, arguments in calls:
        conversation.add_call(wire_name(name), call_id, arguments)


def _add_result(conversation: Conversation, message: ChatMessage) -> None:
    parts = _joined(_parts(message.blocks, "tool"))
    text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    pictures = [part for part in parts if isinstance(part, ImageSource)]
    given = message.additional_kwargs
    name = given.get("name")
    conversation.add_result(
        text, given.get("tool_call_id"), wire_name(name) if isinstance(name, str) else None, pictures
    )


def _thoughts(message: ChatMessage) -> str:
    return "".join(block.content or "" for block in message.blocks if isinstance(block, ThinkingBlock))


# Tool calls ---------------------------------------------------------------------------------------------------------

_Call: TypeAlias = tuple[str, str | None, dict[str, Any]]


def _calls(message: ChatMessage) -> list[_Call]:
    """Return the tool calls of a message: its blocks, and those of older histories, each once."""
    calls: list[_Call] = [
        (block.tool_name, block.tool_call_id, parsed_arguments(block.tool_kwargs))
        for block in message.blocks
        if isinstance(block, ToolCallBlock)
    ]
    if calls:
        return calls
    legacy = message.additional_kwargs.get("tool_calls")
    return [_legacy_call(call) for call in legacy] if is_list(legacy) else []


def _legacy_call(call: object) -> _Call:
    """Read a call in OpenAI's form, as a dict or as an object."""
    function = _member(call, "function")
    source = function if function is not None else call
    name = _member(source, "name")
    if not isinstance(name, str):
        raise LMStudioValueError(f"a tool call in additional_kwargs has no name: {call!r}")
    arguments = _member(source, "arguments")
    return name, _member(call, "id"), parsed_arguments(arguments)


def _member(value: object, name: str) -> Any:
    return value.get(name) if is_object(value) else getattr(value, name, None)


def parsed_arguments(arguments: object) -> dict[str, Any]:
    """Return the arguments of a call as a dict; what is no JSON object counts as none."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return {}
    return arguments if is_object(arguments) else {}


# Blocks -------------------------------------------------------------------------------------------------------------


def _parts(blocks: Sequence[Any], role: Role) -> list[Part]:
    parts: list[Part] = []
    for block in blocks:
        kind: type[object] = block.__class__
        convert = next((_BLOCKS[base] for base in kind.__mro__ if base in _BLOCKS), None)
        if convert is None:
            raise LMStudioValueError(
                f"LM Studio cannot take a {kind.__name__} in a {role} message; it takes text, images and "
                "documents that are text"
            )
        parts.extend(convert(block, role))
    return parts


def _shown(message: ChatMessage, role: Role) -> list[Part]:
    """Return what a message says and shows; core adds pictures of older histories again each time it looks at one."""
    parts = _joined(_parts(message.blocks, role))
    if "images" not in message.additional_kwargs:
        return parts
    return [part for index, part in enumerate(parts) if part not in parts[:index]]


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Join neighbouring texts of one message as `ChatMessage.content` does."""
    joined: list[Part] = []
    for part in parts:
        if joined and isinstance(joined[-1], TextPart) and isinstance(part, TextPart):
            joined[-1] = TextPart(text=f"{joined[-1].text}\n{part.text}")
        else:
            joined.append(part)
    return joined


def _text(block: TextBlock, _role: Role) -> list[Part]:
    return [TextPart(text=block.text)]


def _image(block: ImageBlock, _role: Role) -> list[Part]:
    """Read a picture; LlamaIndex keeps the bytes that it was given as base64."""
    if isinstance(block.image, bytes):
        return [ImageSource.from_base64(block.image)]
    if block.image is not None:
        block.image.seek(0)
        return [ImageSource(bytes(block.image.read()))]
    if block.path is not None:
        return [ImageSource.from_path(block.path)]
    if block.url is not None:
        return [ImageSource.from_url(str(block.url))]
    raise LMStudioValueError("an ImageBlock needs an image, a path or a URL; it has none of them")


def _document(block: DocumentBlock, _role: Role) -> list[Part]:
    """Read a document that is text; its title stands above it."""
    if block.data is None and block.path is None and not (block.url or "").startswith("data:"):
        where = (
            f"the document {redacted_url(block.url)} is on the web; fetch it and"
            if block.url
            else "a DocumentBlock is empty;"
        )
        raise LMStudioValueError(f"{where} pass its data or a path")
    name = str(block.path or block.title)
    try:
        content = block.resolve_document().read()
        text = content.decode("utf-8") if isinstance(content, bytes) else str(content)
    except UnicodeDecodeError as error:
        raise LMStudioValueError(
            f"the document {name!r} ({block.document_mimetype}) is no text; extract its text first, "
            "for example with a LlamaIndex reader"
        ) from error
    except OSError as error:
        raise LMStudioOSError(f"cannot read the document {name!r}: {error}") from error
    except ValueError as error:
        raise LMStudioValueError(
            f"the document {name!r} has no content that can be read ({error}); pass its data or a path"
        ) from error
    title = "" if block.title in {None, _DEFAULT_TITLE} else f"{block.title}\n\n"
    return [TextPart(text=title + text)]


def _citable(block: CitableBlock, role: Role) -> list[Part]:
    return _parts(block.content, role)


def _citation(block: CitationBlock, role: Role) -> list[Part]:
    return _parts([block.cited_content], role)


def _nothing(_block: object, _role: Role) -> list[Part]:
    return []


def _refused(block: AudioBlock | VideoBlock, role: Role) -> list[Part]:
    kind = "audio" if isinstance(block, AudioBlock) else "video"
    raise LMStudioValueError(f"LM Studio takes no {kind} in a {role} message; transcribe or describe it first")


def _misplaced(block: ToolCallBlock, role: Role) -> list[Part]:
    raise LMStudioValueError(f"a call of the tool {block.tool_name!r} cannot stand in a {role} message")


_BLOCKS: dict[type[Any], Callable[[Any, Role], list[Part]]] = {
    TextBlock: _text,
    ImageBlock: _image,
    DocumentBlock: _document,
    CitableBlock: _citable,
    CitationBlock: _citation,
    CachePoint: _nothing,
    ThinkingBlock: _nothing,
    AudioBlock: _refused,
    VideoBlock: _refused,
    ToolCallBlock: _misplaced,
}
