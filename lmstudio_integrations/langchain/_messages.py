"""LangChain's messages to a conversation on its way to the wire. Pure: pictures are only named here."""

import base64
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, FunctionMessage, HumanMessage, SystemMessage
from langchain_core.messages import ToolMessage as LangChainToolMessage

from lmstudio_integrations._adapters.conversation import Conversation, Draft, ImageSource, Part, Role
from lmstudio_integrations._adapters.schemas import wire_name
from lmstudio_integrations._typeguards import is_list, is_object
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.chat import TextPart
from lmstudio_integrations.types.files import FileHandle

logger: logging.Logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Turns:
    """A conversation that is being built.

    Attributes:
        keep_reasoning: Whether earlier thoughts of the model are sent back to it.
        answered: The tool calls that have an answer.
        conversation: What there is so far.
    """

    keep_reasoning: bool
    answered: frozenset[str]
    conversation: Conversation = field(default_factory=Conversation)


def draft(messages: Sequence[BaseMessage], *, keep_reasoning: bool = False) -> list[Draft]:
    """Turn messages into drafts.

    Args:
        messages: The conversation.
        keep_reasoning: Whether earlier thoughts of the model are sent back to it, in `<think>` tags.

    Raises:
        LMStudioValueError: If there is no message, or one of a kind or with a block that cannot be sent.
        LMStudioOSError: If a picture's file cannot be read.
    """
    if not messages:
        raise LMStudioValueError("the list of messages is empty; add a message before asking for an answer")
    answered = frozenset(message.tool_call_id for message in messages if isinstance(message, LangChainToolMessage))
    turns = _Turns(keep_reasoning, answered)
    for message in messages:
        _converter(message)(message, turns)
    return turns.conversation.finish()


# Messages -----------------------------------------------------------------------------------------------------------

_Converter: TypeAlias = Callable[[Any, _Turns], None]


def _converter(message: BaseMessage) -> _Converter:
    for kind, convert in _CONVERTERS:
        if isinstance(message, kind):
            return convert
    raise LMStudioValueError(f"messages of kind {type(message).__name__} cannot be sent to a model")


def _system(message: BaseMessage, turns: _Turns) -> None:
    turns.conversation.add("system", _joined(_parts(message.content, "system")))


def _human(message: BaseMessage, turns: _Turns) -> None:
    """Add a user's turn; Anthropic's form puts the answers of tools into it."""
    rest: list[Any] = []
    results = 0
    for block in _blocks(message.content):
        if is_object(block) and block.get("type") == "tool_result":
            status = "error" if block.get("is_error") else "success"
            _add_result(turns, block.get("content") or "", str(block.get("tool_use_id")), None, status)
            results += 1
        else:
            rest.append(block)
    parts = _joined(_parts(rest, "user"))
    if parts or not results:
        turns.conversation.add("user", parts or [TextPart(text="")])


def _ai(message: AIMessage, turns: _Turns) -> None:
    thoughts = _thoughts(message) if turns.keep_reasoning else ""
    text = [TextPart(text=f"<think>\n{thoughts}\n</think>\n\n")] if thoughts else []
    turns.conversation.add("assistant", _joined([*text, *_parts(message.content, "assistant")]))
    for call in _calls(message, turns.answered):
        turns.conversation.add_call(wire_name(call.name), call.id, call.arguments)


def _tool(message: LangChainToolMessage, turns: _Turns) -> None:
    _add_result(turns, message.content, message.tool_call_id, message.name, message.status)


def _function(message: FunctionMessage, turns: _Turns) -> None:
    _add_result(turns, message.content, None, message.name, "success")


def _chat(message: ChatMessage, turns: _Turns) -> None:
    convert = _BY_ROLE.get(message.role)
    if convert is None:
        raise LMStudioValueError(f"role must be one of {', '.join(_BY_ROLE)}, got {message.role!r}")
    convert(message, turns)


def _chat_ai(message: ChatMessage, turns: _Turns) -> None:
    _ai(AIMessage(content=message.content), turns)


_CONVERTERS: tuple[tuple[type[BaseMessage], _Converter], ...] = (
    (SystemMessage, _system),
    (HumanMessage, _human),
    (AIMessage, _ai),
    (LangChainToolMessage, _tool),
    (FunctionMessage, _function),
    (ChatMessage, _chat),
)

_BY_ROLE: dict[str, _Converter] = {
    "system": _system,
    "developer": _system,
    "user": _human,
    "human": _human,
    "assistant": _chat_ai,
    "ai": _chat_ai,
}


def _add_result(turns: _Turns, content: Any, call_id: str | None, name: str | None, status: str) -> None:
    """Add the answer of a tool; the wire has no place for its status, so a failure says so itself."""
    parts = _parts(content, "tool")
    text = "".join(part.text for part in parts if isinstance(part, TextPart))
    if status == "error" and not text.lower().startswith("error"):
        text = f"Error: {text}"
    pictures = [part for part in parts if isinstance(part, ImageSource)]
    turns.conversation.add_result(text, call_id, wire_name(name) if name else None, pictures)


@dataclass(frozen=True, slots=True)
class _Call:
    id: str | None
    name: str
    arguments: dict[str, Any]


def _calls(message: AIMessage, answered: frozenset[str]) -> list[_Call]:
    """Return the tool calls of a message: its own, Anthropic's blocks, and invalid ones that were answered."""
    calls = [_Call(call["id"], call["name"], call["args"]) for call in message.tool_calls]
    for block in _blocks(message.content):
        if is_object(block) and block.get("type") in {"tool_use", "tool_call"}:
            arguments = block.get("input") or block.get("args")
            calls.append(_Call(block.get("id"), str(block.get("name")), arguments if is_object(arguments) else {}))
    invalid = [call for call in message.invalid_tool_calls if call["id"] in answered]
    calls += [_Call(call["id"], call["name"] or "unknown", {}) for call in invalid]
    once: dict[str, _Call] = {}
    for number, call in enumerate(calls):
        once.setdefault(call.id or f"#{number}", call)
    return list(once.values())


def _thoughts(message: AIMessage) -> str:
    """Return the model's earlier thoughts, from wherever LangChain keeps them."""
    kept = message.additional_kwargs.get("reasoning_content")
    if isinstance(kept, str) and kept:
        return kept
    texts = (block.get("reasoning") or block.get("thinking") for block in _blocks(message.content) if is_object(block))
    return "".join(text for text in texts if isinstance(text, str))


# Blocks -------------------------------------------------------------------------------------------------------------

_TEXTS = {"text": "text", "text-plain": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Blocks of text, and where it stands in them."""

_DATA = frozenset({"json", "search_result", None})
"""Blocks of a tool's answer that are told as JSON; `None` are dicts that say of no kind to be."""


def _blocks(content: object) -> list[Any]:
    if isinstance(content, str):
        return [content] if content else []
    return content if is_list(content) else [content]


def _parts(content: object, role: Role) -> list[Part]:
    parts = [_part(block, role) for block in _blocks(content)]
    return [part for part in parts if part is not None]


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Join neighbouring texts of one message, as `message.text` does."""
    joined: list[Part] = []
    for part in parts:
        if joined and isinstance(joined[-1], TextPart) and isinstance(part, TextPart):
            joined[-1] = TextPart(text=joined[-1].text + part.text)
        else:
            joined.append(part)
    return joined


def _part(block: object, role: Role) -> Part | None:
    if isinstance(block, str):
        return TextPart(text=block)
    if not is_object(block):
        raise LMStudioValueError(f"content blocks are strings or dicts, got {block!r}")
    kind = block.get("type", "text" if "text" in block else None)
    if kind in _TEXTS:
        return _text(block, _TEXTS[kind])
    if kind in {"image", "image_url", "input_image"}:
        return _image(block)
    if kind == "file" and "identifier" in block:
        return FileHandle.from_dict(block)
    if kind in _DATA and role == "tool":
        return TextPart(text=_json(block.get("json", block)))
    if role == "assistant" or "cachePoint" in block:
        # Tool calls and thoughts are read elsewhere; the others concern only the provider that wrote them.
        logger.debug("skipped a content block of type %r", kind)
        return None
    raise LMStudioValueError(
        f"LM Studio cannot take a content block of type {kind!r} in a {role} message; it takes text and images"
    )


def _text(block: Mapping[str, Any], member: str) -> TextPart | None:
    """Read a block of text; as a file, it may be in base64."""
    text = block.get(member)
    if text is None and isinstance(block.get("base64"), str):
        text = _decoded(block["base64"])
    if text is None and not block.keys() & {"url", "file_id"}:
        return None
    if not isinstance(text, str):
        raise LMStudioValueError(f"a content block of text must have its text; it has {sorted(block)}")
    return TextPart(text=text)


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError as error:
        raise LMStudioValueError(f"a content block of text is no base64 of UTF-8: {error}") from error


def _json(data: object) -> str:
    return json.dumps(data, ensure_ascii=False, default=str)


def _image(block: Mapping[str, Any]) -> ImageSource:
    """Read a picture, in any of the forms that LangChain, OpenAI and Anthropic have for one."""
    inner = block.get("image_url") or block.get("source")
    found: Mapping[str, Any] = inner if is_object(inner) else block
    url = inner if isinstance(inner, str) else found.get("url")
    data = found.get("base64") or found.get("data")
    if isinstance(data, bytes):
        return ImageSource(data)
    if data:
        return ImageSource.from_base64(str(data))
    if found.get("path"):
        return ImageSource.from_path(found["path"])
    if isinstance(url, str):
        return ImageSource.from_url(url)
    raise LMStudioValueError(
        f"an image block needs base64 data, bytes, a path, a data URL or an http(s) URL; it has {sorted(block)}"
    )
