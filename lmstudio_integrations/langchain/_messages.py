"""LangChain's messages as a conversation on its way to the wire, and their tokens.

`_adapters/request_messages.py` says what becomes of a conversation.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, FunctionMessage, HumanMessage, SystemMessage
from langchain_core.messages import ToolMessage as LangChainToolMessage
from pydantic import ValidationError

from lmstudio_integrations._adapters.request_messages import (
    NO_MESSAGES,
    RETURNED,
    TAGS,
    Conversation,
    ImageSource,
    Part,
    PendingMessage,
    Role,
    decoded_text,
    document_text,
    encode,
    joined,
    not_shown,
    response_parts,
    stored_arguments,
    text_of,
)
from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.client.concurrency.flows import run
from lmstudio_integrations.client.files.uploads import decode_base64, decode_data_url
from lmstudio_integrations.client.models.reasoning import Messages, without_thoughts
from lmstudio_integrations.client.predictions.language_model import LanguageModel
from lmstudio_integrations.client.predictions.plan import PromptParameters
from lmstudio_integrations.errors import LMStudioServerError, LMStudioValueError
from lmstudio_integrations.langchain._responses import PROVIDER
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.reasoning import ReasoningPart

logger: logging.Logger = logging.getLogger(__name__)


def convert(messages: Sequence[BaseMessage]) -> list[PendingMessage]:
    """Convert messages.

    Args:
        messages: The conversation.

    Raises:
        LMStudioValueError: If there is no message, or one of a kind or with a block that cannot be sent.
        LMStudioOSError: If an image's file cannot be read.
    """
    if not messages:
        raise LMStudioValueError(NO_MESSAGES)
    with_result = frozenset(message.tool_call_id for message in messages if isinstance(message, LangChainToolMessage))
    conversation = Conversation()
    for message in messages:
        kind: Any = type(message)
        if isinstance(message, ChatMessage):
            kind = _KINDS.get(message.role)
            if kind is None:
                raise LMStudioValueError(f"role must be one of {', '.join(_KINDS)}; got {message.role!r}")
        if issubclass(kind, SystemMessage):
            conversation.add("system", joined(_parts(message.content, "system"), ""))
        elif issubclass(kind, HumanMessage):
            _add_turn(conversation, message)
        elif issubclass(kind, AIMessage):
            ai_message = message if isinstance(message, AIMessage) else AIMessage(message.content, name=message.name)
            _add_response(conversation, ai_message, with_result)
        elif isinstance(message, LangChainToolMessage):
            _add_result(conversation, message.content, message.tool_call_id, message.name, message.status)
        elif isinstance(message, FunctionMessage):
            _add_result(conversation, message.content, None, message.name)
        else:
            raise LMStudioValueError(f"messages of kind {kind.__name__} cannot be sent to a model")
    return conversation.finish()


# Messages -----------------------------------------------------------------------------------------------------------

_KINDS: dict[str, type[BaseMessage]] = {
    **dict.fromkeys(("system", "developer"), SystemMessage),
    **dict.fromkeys(("user", "human"), HumanMessage),
    **dict.fromkeys(("assistant", "ai"), AIMessage),
}
"""The kind that a `ChatMessage` is read as, by its role."""


def _add_turn(conversation: Conversation, message: BaseMessage) -> None:
    """Add a user's turn. In Anthropic's form it also holds the results of tools."""
    if isinstance(message.content, str):
        conversation.add("user", [message.content], message.name)
        return
    rest: list[Any] = []
    has_result = False
    for block in _blocks(message.content):
        if is_object(block) and _kind(block) == "tool_result":
            content, status = block.get("content") or "", "error" if block.get("is_error") else "success"
            call_id = block.get("tool_use_id")
            _add_result(conversation, content, call_id if isinstance(call_id, str) else None, None, status)
            has_result = True
        else:
            rest.append(block)
    has_file = any(_kind(block) in _FILES for block in rest)
    parts = joined(_parts(rest, "user"), "\n\n" if has_file else "")
    if parts or not has_result:
        conversation.add("user", parts or [""], message.name)


def _add_response(conversation: Conversation, message: AIMessage, with_result: frozenset[str]) -> None:
    """Add a model's turn; of its invalid tool calls, those whose identifiers have a result."""
    parts, (reasoning, tags) = joined(_parts(message.content, "assistant"), ""), _reasoning(message)
    if isinstance(reasoning, str) and (reasoning or tags):  # the blocks of the content, if there are any, say the same
        parts = joined((part for part in parts if not isinstance(part, ReasoningPart)), "")
        parts = response_parts(parts, reasoning, tags)
    conversation.add("assistant", parts, message.name)
    for name, call_id, arguments in _calls(message, with_result):
        conversation.add_call(name, call_id, arguments)


def _reasoning(message: AIMessage) -> tuple[object, object]:
    """Return the thoughts of a message and their tags: its own, or those of the block that was made of them.

    Of a stream that was left after text, the last thought may be cut off: only blocks say where thoughts end.
    """
    others, metadata = message.additional_kwargs, message.response_metadata
    was_left = metadata.get("model_provider") == PROVIDER and "finish_reason" not in metadata
    if was_left and TAGS not in others and message.text:
        return None, None
    if "reasoning_content" in others or TAGS in others:
        return others.get("reasoning_content", ""), others.get(TAGS)
    thoughts = [block for block in _blocks(message.content) if is_object(block) and _kind(block) in _THOUGHT_MEMBERS]
    if len(thoughts) == 1 and is_object(extras := thoughts[0].get("extras")) and TAGS in extras:
        return thoughts[0].get("reasoning"), extras[TAGS]
    return None, None  # several are those of several messages, each in its place


def _add_result(
    conversation: Conversation, content: Any, call_id: str | None, name: str | None, status: str = "success"
) -> None:
    """Add the result of a tool. The wire has no place for its status, so the text of a failure begins with "Error"."""
    parts = _parts(content, "tool")
    text = text_of(parts, "\n")
    if status == "error" and not text.lower().startswith("error"):
        text = f"Error: {text}"
    conversation.add_result(text, call_id, name, parts)


_ToolCall: TypeAlias = tuple[str, str | None, dict[str, Any]]


def _calls(message: AIMessage, with_result: frozenset[str]) -> list[_ToolCall]:
    """Return the tool calls of a message: its own, Anthropic's blocks, and invalid ones that have a result."""
    calls: list[_ToolCall] = [(call["name"], call["id"], call["args"]) for call in message.tool_calls]
    blocks: list[_ToolCall] = []
    for block in _blocks(message.content):
        if is_object(block) and _kind(block) in {"tool_use", "tool_call"}:
            arguments = stored_arguments(block.get("input") or block.get("args"))
            name = block.get("name")
            blocks.append((name if isinstance(name, str) else "unknown", block.get("id"), arguments))
    calls += [block for block in blocks if not any(_is_same(call, block) for call in calls)]
    invalid: list[_ToolCall] = [
        (call["name"] or "unknown", call["id"], stored_arguments(call["args"])) for call in message.invalid_tool_calls
    ]
    answered = [call for call in invalid if call[1] in with_result]
    return [*calls, *(call for call in answered if not any(_is_same(block, call) for block in blocks))]


def _is_same(call: _ToolCall, other: _ToolCall) -> bool:
    """Whether two entries of a message are one call. Blocks may lack the identifier, and the arguments."""
    (name, call_id, arguments), (other_name, other_id, others) = call, other
    if call_id and other_id:
        return call_id == other_id
    return name == other_name and others in (arguments, {})


# Blocks -------------------------------------------------------------------------------------------------------------

_TEXT_MEMBERS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
}
"""Types of text blocks, and the member that holds the text."""

_THOUGHT_MEMBERS = {"reasoning": "reasoning", "thinking": "thinking"}
"""Types of blocks with a thought, and the member that holds it."""

_IMAGES = frozenset({"image", "image_url", "input_image"})
_FILES = frozenset({"file", "input_file", "document", "text-plain"})

_DATA = frozenset({"json", "search_result", None})
"""Types of blocks of a tool's result that are sent as JSON; `None` stands for dicts without a type."""


def _blocks(content: object) -> list[Any]:
    if isinstance(content, str):
        return [content] if content else []
    return content if is_list(content) else [content]


def _kind(block: object) -> str | None:
    """Return the type of a block; a dict with a text needs none."""
    kind = block.get("type", "text" if "text" in block else None) if is_object(block) else None
    return kind if isinstance(kind, str) else None


def _parts(content: object, role: Role) -> list[Part]:
    parts: list[Part] = []
    for block in _blocks(content):
        try:
            part = _read(block, role)
        except LMStudioValueError as error:
            if role not in RETURNED:
                raise
            part = not_shown(_kind(block) or "content", error)
        if part is not None:
            parts.append(part)
    return parts


def _read(block: object, role: Role) -> Part | None:
    """Read a block.

    Raises:
        LMStudioValueError: If it cannot be sent.
    """
    if isinstance(block, str):
        return block
    if not is_object(block):
        raise LMStudioValueError(f"content blocks must be strings or dicts; got {shown(block)}")
    kind = _kind(block)
    if kind in _TEXT_MEMBERS:
        text = block.get(_TEXT_MEMBERS[kind])
        if text is not None and not isinstance(text, str):
            raise LMStudioValueError(f"a text block must hold its text; it has {sorted(map(str, block))}")
        return text
    if kind in _IMAGES:
        return _image(block).for_role(role)
    if role == "tool" and "cachePoint" not in block:
        text = None if kind in _DATA else _file_text(block, of_tool=True)
        return _json_text(block.get("json", block)) if text is None else text
    if kind == "file" and "identifier" in block:
        try:
            return FileHandle.from_dict(block)
        except ValidationError as error:
            wrong = {str(each["loc"][0]) for each in error.errors(include_url=False) if each["loc"]}
        raise LMStudioValueError(
            "a block with the identifier of a file must be its whole handle, handle.to_dict(); "
            f"{', '.join(sorted(wrong))} is missing or invalid"
        )
    text = _file_text(block) if kind in _FILES else None
    if text is None and role != "assistant" and "cachePoint" not in block:
        raise LMStudioValueError(
            f"LM Studio does not accept a content block of type {shown(block.get('type'))} in a {role} message, only "
            "text and images; extract its text, transcribe or describe it first"
        )
    return _thought(block, kind) if text is None else text


def _json_text(value: object) -> str:
    """Return what a tool returned as JSON, as far as it can be written."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):
        return shown(value)


def _thought(block: Mapping[str, Any], kind: str | None) -> ReasoningPart | None:
    """Read a thought. Tool calls are read elsewhere; other blocks concern only the provider that wrote them."""
    thought = block.get(_THOUGHT_MEMBERS.get(kind or "", ""))
    if isinstance(thought, str) and thought:
        return ReasoningPart(text=thought, start_tag="", end_tag="")
    logger.debug("skipped a content block of type %r", kind)
    return None


def _file_text(block: Mapping[str, Any], *, of_tool: bool = False) -> str | None:
    """Return the text of a file, in any of the forms of LangChain, OpenAI, Anthropic and MCP; `None` if it has none.

    Of a file that a tool returned, it may be an address or a note.
    """
    inner = [each for name in ("extras", "file", "source", "resource") if is_object(each := block.get(name))]
    members: dict[str, Any] = {name: value for each in (block, *inner) for name, value in each.items()}

    def member(*names: str) -> Any:
        return next((members[name] for name in names if isinstance(members.get(name), str | bytes)), None)

    text = member("text", "data" if members.get("type") == "text" else "")
    data, url = member("base64", "data", "file_data", "blob"), member("url", "file_url", "uri")
    mime_type, name = member("mime_type", "media_type", "mimeType"), member("filename", "name", "title")
    for value, what in ((url, "url"), (mime_type, "mime_type"), (name, "filename")):
        if isinstance(value, bytes):
            raise LMStudioValueError(f"the {what} of a content block must be a string; got {shown(value)}")
    if isinstance(text, str):
        return text
    if isinstance(data or url, str) and (data or url).startswith("data:"):
        mime_type, data = mime_type or (data or url)[5:].partition(";")[0], decode_data_url(data or url)
    elif isinstance(data, str):
        data = decode_base64(data, "its content")
    if not of_tool:
        return None if data is None else decoded_text(data, mime_type)
    if data is None and url is None and "file_id" not in members:
        return None
    return document_text(data=data, url=url, mime_type=mime_type, name=name)


def _image(block: Mapping[str, Any]) -> ImageSource:
    """Read an image, in any of the forms of LangChain, OpenAI and Anthropic."""
    inner = block.get("image_url") or block.get("source")
    members: Mapping[str, Any] = inner if is_object(inner) else block
    url = inner if isinstance(inner, str) else members.get("url")
    data = members.get("base64") or members.get("data")
    if isinstance(data, bytes):
        return ImageSource(data)
    if data:
        return ImageSource.from_base64(data)
    if members.get("path"):
        return ImageSource.from_path(members["path"])
    if isinstance(url, str):
        return ImageSource.from_url(url)
    raise LMStudioValueError(
        "an image block needs base64 data, bytes, a path, a data URL or an http(s) URL; it has "
        f"{sorted(map(str, block))}"
    )


# Tokens ---------------------------------------------------------------------------------------------------------------
# With the model's own template and tokenizer.

PER_MESSAGE = 4
"""Tokens that a template puts around a message, roughly; counted only where the template rejects the conversation."""

PER_IMAGE = 256
"""Tokens of an image, roughly; the server does not report them."""


def count_tokens(
    model: LanguageModel,
    pending: Sequence[PendingMessage],
    tools: Sequence[dict[str, Any]],
    parameters: PromptParameters,
) -> int:
    """Return the number of tokens of a conversation, with the earlier thoughts that are sent.

    The template may reject a part of a conversation, and `trim_messages` counts many parts. Such a part is counted text
    by text, in one batch.
    """
    without_images = [
        PendingMessage(message.role, [part for part in message.parts if not isinstance(part, ImageSource | FileHandle)])
        for message in pending
    ]
    images = sum(len(message.parts) for message in pending) - sum(len(message.parts) for message in without_images)
    conversation, around = encode(without_images, {}), images * PER_IMAGE
    try:
        texts = [run(model.apply_prompt_template(conversation, {}, tools, parameters))]
    except (LMStudioServerError, LMStudioValueError):
        try:
            sent: Messages = run(model.get_sent_messages(conversation, parameters))
        except (LMStudioServerError, LMStudioValueError):
            sent = without_thoughts(conversation.messages)
        texts = [*_texts(sent), *map(json.dumps, tools)]
        around += PER_MESSAGE * len(pending)
    return sum(cast("list[int]", run(model.count_tokens(texts)))) + around


def _texts(messages: Messages) -> Iterator[str]:
    """Yield everything in a conversation that the model reads, without the template around it."""
    for part in (part for message in messages for part in message["content"]):
        if part["type"] == "toolCallRequest":
            call = part["toolCallRequest"]
            yield f"{call['name']} {json.dumps(call.get('arguments', {}))}"
        else:
            yield part["content" if part["type"] == "toolCallResult" else "text"]
