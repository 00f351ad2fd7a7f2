"""What questions are about: a state as JSON, for models of both kinds, and as text, for language models.

Of a message of a model, a state has what it said and called, not what it thought: a thought could talk a guard into
what the user never allowed.
"""

import json
from collections.abc import Mapping
from typing import Any

from lmstudio_integrations._support.text import dumps, shown
from lmstudio_integrations._support.typeguards import MOST_LEVELS, is_list, is_object, is_too_deep
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.decisions import Question, parse_questions

State = str | dict[str, Any] | list[Any]

_MEDIA = {"image", "image_url", "audio", "input_audio", "video", "file", "media"}
"""The types of the parts of messages that a language model does not see this way."""

_TEXTS = {"text", "input_text", "output_text"}
_CALLS = {"function_call", "server_tool_call", "server_tool_use", "tool_call", "tool_use"}
"""The types of the parts of a model's message that are texts and calls, in the forms of several APIs."""

_MODELS = ("assistant", "ai", "model")
"""The roles of a model's messages."""

_SAID = {"role", "name", "content", "tool_calls", "function_call"}
"""The members of a model's message that are not thoughts."""


def state_of(state: object) -> State:
    """Return a state as JSON, and messages of a model in it as `_said` has them.

    Raises:
        LMStudioValueError: If it is neither text nor an object or a list, if it is empty, or no JSON.
    """
    plain = state if isinstance(state, str) else as_json(state, "the state")
    if not isinstance(state, str) and not isinstance(plain, dict | list):
        raise LMStudioValueError(f"the state must be text, an object or a list; got {shown(state)}")
    said: State = _said(plain)
    if not said or (isinstance(said, str) and not said.strip()):
        raise LMStudioValueError(f"the state is empty; it must be text, an object or a list; got {shown(state)}")
    return said


def questions_of(questions: object) -> dict[str, Question]:
    """Return questions by their ids; what they say is JSON.

    Raises:
        LMStudioValueError: If there are none, or one is invalid; the message names it.
    """
    parsed = parse_questions(questions)
    return parse_questions({name: as_json(question, f"questions.{name}") for name, question in parsed.items()})


def as_json(value: object, name: str) -> Any:
    """Return a value as JSON; dates, and objects of pydantic and of dataclasses, as pydantic writes them.

    Raises:
        LMStudioValueError: If it is no JSON; `name` is what the error calls it.
    """
    too_deep = f"{name} is nested more than {MOST_LEVELS} levels deep, or contains itself"
    try:
        plain = json.loads(dumps(value))
    except RecursionError:
        raise LMStudioValueError(too_deep) from None
    except (TypeError, ValueError) as error:
        text = too_deep if "Circular reference" in str(error) else f"{name} must be text or JSON: {error}"
        raise LMStudioValueError(text) from None
    if is_too_deep(plain):
        raise LMStudioValueError(too_deep)
    return plain


def _said(value: Any) -> Any:
    """Return a value, and of each message of a model in it what it said and called.

    Raises:
        LMStudioValueError: If a part of a message is incomplete.
    """
    if is_list(value):
        return [_said(each) for each in value]
    if not is_object(value):
        return value
    if not _is_message(value):
        return {name: _said(each) for name, each in value.items()}
    content = value["content"]
    parts: list[Any] = content if is_list(content) else [content]
    for part in parts:
        if _type_of(part) == "text" and _text_of(part) is None:
            raise LMStudioValueError(f"a part of a message has the type 'text' and no text; got {shown(part)}")
    if value["role"] not in _MODELS:
        return value
    kept = {name: each for name, each in value.items() if name in _SAID}
    calls = [] if kept.get("tool_calls") else [part for part in parts if _type_of(part) in _CALLS]
    text = "".join(filter(None, map(_text_of, parts)))
    kept["content"] = [*([{"type": "text", "text": text}] if text else []), *calls] if calls else text
    return kept


def _is_message(value: Any) -> bool:
    return is_object(value) and {"role", "content"} <= value.keys()


def _type_of(part: Any) -> object:
    kind = part.get("type") if is_object(part) else None
    return kind if isinstance(kind, str) else None


def _text_of(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    text = part.get("text") if _type_of(part) in _TEXTS else None
    return text if isinstance(text, str) else None


def state_text(state: State) -> str:
    """Return a state as text: messages by their roles, other values as JSON."""
    messages = state.get("messages") if is_object(state) and state.keys() == {"messages"} else state
    listed = messages if is_list(messages) else []
    are_messages = listed and all(map(_is_message, listed))
    return "\n".join(map(_message_text, listed)) if are_messages else as_text(state)


def _message_text(message: Mapping[str, Any]) -> str:
    content = message["content"]
    parts: list[Any] = content if is_list(content) else [content or ""]
    texts = [as_text(part) if (text := _text_of(part)) is None else text for part in parts]
    others = {name: each for name, each in message.items() if name not in {"role", "content"} and each}
    if others:
        texts.append(as_text(others))
    lines = "\n".join(texts)
    return f"{message['role']}: {lines}"


def as_text(content: object) -> str:
    """Return text as it is, and other JSON as text."""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def reject_media(content: object) -> None:
    """Check that a language model can be asked about content.

    Raises:
        LMStudioValueError: If it has images or other media.
    """
    inner = content.values() if is_object(content) else content if is_list(content) else ()
    if is_object(content) and _type_of(content) in _MEDIA:
        raise LMStudioValueError(
            f"a language model decides by text only, and this is of the type {content['type']!r}: describe it in "
            "words, or use a decision model that sees images"
        )
    for each in inner:
        reject_media(each)
