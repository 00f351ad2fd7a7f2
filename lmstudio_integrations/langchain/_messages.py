"""LangChain's messages to a conversation in wire form (protocol §6.1). Pure: what must be uploaded is only named.

`draft` turns messages into `Draft`s whose parts are text, tool calls, tool results and `ImageSource`s; after these have
been uploaded, `to_history` puts the handles in their places. Chat templates want one system message and alternating
roles, so neighbours of one role become one message; pictures in the answers of tools, for which the wire has no place,
move to the next user turn.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, FunctionMessage, HumanMessage, SystemMessage
from langchain_core.messages import ToolMessage as LangChainToolMessage

from lmstudio_integrations._narrow import is_list, is_object
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError
from lmstudio_integrations.types import chat
from lmstudio_integrations.types.chat import ChatHistory, FileHandle, TextPart
from lmstudio_integrations.types.tools import ToolCallRequest, ToolCallRequestPart, ToolCallResultPart

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ImageSource:
    """A picture that must be uploaded before the conversation can be sent.

    Attributes:
        data: The file's content.
        url: Where to fetch it instead, http or https.
    """

    data: bytes = b""
    url: str | None = None


Part: TypeAlias = TextPart | FileHandle | ImageSource | ToolCallRequestPart | ToolCallResultPart


@dataclass(slots=True)
class Draft:
    """A message whose pictures are not uploaded yet."""

    role: Role
    parts: list[Part] = field(default_factory=list[Part])


@dataclass(slots=True)
class _Conversation:
    """Collects messages, merges neighbours, and keeps pictures of tools for the next user turn."""

    keep_reasoning: bool
    answered: frozenset[str]
    drafts: list[Draft] = field(default_factory=list[Draft])
    names: dict[str, str] = field(default_factory=dict[str, str])
    pictures: list[ImageSource] = field(default_factory=list[ImageSource])

    def add(self, role: Role, parts: Sequence[Part]) -> None:
        """Add a message, or let the last one of the same role grow."""
        if self.pictures and role != "tool":
            shown, self.pictures = self.pictures, []
            self.add("user", shown)
        if self.drafts and self.drafts[-1].role == role:
            _extend(self.drafts[-1].parts, parts)
        else:
            self.drafts.append(Draft(role, list(parts)))

    def finish(self) -> list[Draft]:
        """Return the messages, the system prompt first."""
        if self.pictures:
            self.add("user", self.pictures)
        system = Draft("system")
        for found in self.drafts:
            if found.role == "system":
                _extend(system.parts, found.parts)
        rest = _merged(found for found in self.drafts if found.role != "system")
        return [system, *rest] if system.parts else rest


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
    conversation = _Conversation(keep_reasoning, answered)
    for message in messages:
        _converter(message)(message, conversation)
    return conversation.finish()


def images(drafts: Iterable[Draft]) -> list[ImageSource]:
    """Return the pictures that must be uploaded, each once."""
    found = {part: None for message in drafts for part in message.parts if isinstance(part, ImageSource)}
    return list(found)


def to_history(drafts: Iterable[Draft], handles: Mapping[ImageSource, FileHandle]) -> ChatHistory:
    """Return the conversation in wire form, with the uploaded pictures in their places."""
    return ChatHistory(messages=[_message(message, handles) for message in drafts])


_WIRE: dict[Role, Callable[..., chat.Message]] = {
    "system": chat.SystemMessage,
    "user": chat.UserMessage,
    "assistant": chat.AssistantMessage,
    "tool": chat.ToolMessage,
}


def _message(found: Draft, handles: Mapping[ImageSource, FileHandle]) -> chat.Message:
    parts = [handles[part] if isinstance(part, ImageSource) else part for part in found.parts]
    return _WIRE[found.role](content=parts)


def _extend(parts: list[Part], more: Sequence[Part]) -> None:
    """Add a neighbour's parts; a blank line keeps two texts apart, however the server joins parts."""
    if parts and more and isinstance(parts[-1], TextPart) and isinstance(more[0], TextPart):
        parts[-1] = TextPart(text=f"{parts[-1].text}\n\n{more[0].text}")
        more = more[1:]
    parts.extend(more)


def _merged(drafts: Iterable[Draft]) -> list[Draft]:
    """Join neighbours of one role, which stand together now that no system message is between them."""
    merged: list[Draft] = []
    for found in drafts:
        if merged and merged[-1].role == found.role:
            _extend(merged[-1].parts, found.parts)
        else:
            merged.append(found)
    return merged


# Messages -----------------------------------------------------------------------------------------------------------

_Converter: TypeAlias = Callable[[Any, _Conversation], None]


def _converter(message: BaseMessage) -> _Converter:
    for kind, convert in _CONVERTERS:
        if isinstance(message, kind):
            return convert
    raise LMStudioValueError(f"messages of kind {type(message).__name__} cannot be sent to a model")


def _system(message: BaseMessage, conversation: _Conversation) -> None:
    conversation.add("system", _joined(_parts(message.content, "system")))


def _human(message: BaseMessage, conversation: _Conversation) -> None:
    """Add a user's turn; Anthropic's form puts the answers of tools into it."""
    rest: list[Any] = []
    for block in _blocks(message.content):
        if is_object(block) and block.get("type") == "tool_result":
            status = "error" if block.get("is_error") else "success"
            _add_result(conversation, block.get("content") or "", str(block.get("tool_use_id")), None, status)
        else:
            rest.append(block)
    parts = _joined(_parts(rest, "user"))
    if parts or not conversation.drafts or conversation.drafts[-1].role != "tool":
        conversation.add("user", parts or [TextPart(text="")])


def _ai(message: AIMessage, conversation: _Conversation) -> None:
    thoughts = _thoughts(message) if conversation.keep_reasoning else ""
    text = [TextPart(text=f"<think>\n{thoughts}\n</think>\n\n")] if thoughts else []
    parts: list[Part] = _joined([*text, *_parts(message.content, "assistant")])
    for request in _requests(message, conversation.answered):
        conversation.names[request.id or ""] = request.name
        parts.append(ToolCallRequestPart(tool_call_request=request))
    conversation.add("assistant", parts)


def _tool(message: LangChainToolMessage, conversation: _Conversation) -> None:
    _add_result(conversation, message.content, message.tool_call_id, message.name, message.status)


def _function(message: FunctionMessage, conversation: _Conversation) -> None:
    _add_result(conversation, message.content, None, message.name, "success")


def _chat(message: ChatMessage, conversation: _Conversation) -> None:
    convert = _BY_ROLE.get(message.role)
    if convert is None:
        raise LMStudioValueError(f"role must be one of {', '.join(_BY_ROLE)}, got {message.role!r}")
    convert(message, conversation)


def _chat_ai(message: ChatMessage, conversation: _Conversation) -> None:
    _ai(AIMessage(content=message.content), conversation)


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


def _add_result(conversation: _Conversation, content: Any, call_id: str | None, name: str | None, status: str) -> None:
    """Add the answer of a tool; what it shows waits for the next user turn."""
    texts: list[str] = []
    for part in _parts(content, "tool"):
        if isinstance(part, ImageSource):
            conversation.pictures.append(part)
        elif isinstance(part, TextPart):
            texts.append(part.text)
    text = "".join(texts)
    if status == "error" and not text.lower().startswith("error"):
        text = f"Error: {text}"
    known = name or conversation.names.get(call_id or "")
    conversation.add("tool", [_result(text, call_id, known)])


def _result(text: str, call_id: str | None, name: str | None) -> ToolCallResultPart:
    fields = {"content": text, "tool_call_id": call_id, "name": name}
    return ToolCallResultPart.from_dict({key: value for key, value in fields.items() if value is not None})


def _requests(message: AIMessage, answered: frozenset[str]) -> list[ToolCallRequest]:
    """Return the tool calls of a message: its own, Anthropic's blocks, and invalid ones that were answered."""
    calls: dict[str, ToolCallRequest] = {}
    for call in message.tool_calls:
        _note(calls, call["id"], call["name"], call["args"])
    for block in _blocks(message.content):
        if is_object(block) and block.get("type") in {"tool_use", "tool_call"}:
            arguments = block.get("input") or block.get("args")
            _note(calls, block.get("id"), str(block.get("name")), arguments if is_object(arguments) else {})
    for invalid in message.invalid_tool_calls:
        if invalid["id"] in answered:
            _note(calls, invalid["id"], invalid["name"] or "unknown", {})
    return list(calls.values())


def _note(calls: dict[str, ToolCallRequest], call_id: str | None, name: str, arguments: dict[str, Any]) -> None:
    key = call_id or f"#{len(calls)}"
    if key not in calls:
        fields = {"name": name, "arguments": arguments} | ({"id": call_id} if call_id else {})
        calls[key] = ToolCallRequest.from_dict(fields)


def _thoughts(message: AIMessage) -> str:
    """Return the model's earlier thoughts, from wherever LangChain keeps them."""
    kept = message.additional_kwargs.get("reasoning_content")
    if isinstance(kept, str) and kept:
        return kept
    texts = (block.get("reasoning") or block.get("thinking") for block in _blocks(message.content) if is_object(block))
    return "".join(text for text in texts if isinstance(text, str))


# Blocks -------------------------------------------------------------------------------------------------------------

_SKIPPED = frozenset(
    {"tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call", "input_json_delta"}
    | {"reasoning", "reasoning_content", "thinking", "redacted_thinking"}
)
"""Blocks of assistant messages that are read elsewhere, or are not sent."""


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
    if isinstance(block, FileHandle):
        return block
    if not is_object(block):
        raise LMStudioValueError(f"content blocks are strings or dicts, got {block!r}")
    kind = block.get("type", "text")
    if kind in {"text", "text-plain", "input_text", "output_text"}:
        text = block.get("text")
        return TextPart(text=text) if isinstance(text, str) else None
    if kind in {"image", "image_url", "input_image"}:
        return _image(block)
    if kind in _SKIPPED and role == "assistant":
        return None
    raise LMStudioValueError(
        f"LM Studio cannot take a content block of type {kind!r} in a {role} message; it takes text and images"
    )


def _image(block: Mapping[str, Any]) -> ImageSource | FileHandle:
    """Read a picture, in any of the forms that LangChain, OpenAI and Anthropic have for one."""
    inner = block.get("image_url") or block.get("source")
    found: Mapping[str, Any] = inner if is_object(inner) else block
    url = inner if isinstance(inner, str) else found.get("url")
    data = found.get("base64") or found.get("data")
    if data:
        return ImageSource(data if isinstance(data, bytes) else _decode(str(data)))
    if found.get("path"):
        return _read(Path(found["path"]))
    if isinstance(url, str) and url.startswith("data:"):
        return ImageSource(_decode(url.partition(",")[2]))
    if isinstance(url, str) and url.startswith(("http://", "https://")):
        return ImageSource(url=url)
    raise LMStudioValueError(
        f"an image block needs base64 data, bytes, a path, a data URL or an http(s) URL; it has {sorted(block)}"
    )


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=False)
    except binascii.Error as error:
        raise LMStudioValueError(f"the image's data is not base64: {error}") from error


def _read(path: Path) -> ImageSource:
    try:
        return ImageSource(path.read_bytes())
    except OSError as error:
        raise LMStudioOSError(f"cannot read the image {path}: {error.strerror or error}") from error
