"""Which thoughts of a conversation an instance gets, and as which text.

Whether a thought is sent depends on its place alone, so that the beginning of a conversation stays the same.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from lmstudio_integrations.client.models.reasoning.replay import (
    OWN_TEMPLATE,
    keeping,
    replay_of,
    sent_tags,
    tags_of_setting,
)
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioModelNotFoundError, LMStudioServerError
from lmstudio_integrations.types.chat import text_part
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.reasoning import REJECTED_REASONING, ReasoningOptions, ReasoningReplay, Tags

Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""Messages in wire form, with reasoning."""


class Sent(NamedTuple):
    """A conversation as an instance gets it.

    Attributes:
        messages: The messages.
        template: The settings that must go with them, because they change the chat template.
        replay: What the template does with thoughts, if that decided about them.
    """

    messages: Messages
    template: LlmPredictionConfig = OWN_TEMPLATE
    replay: ReasoningReplay | None = None


def sent_messages(
    operation: Operation,
    instance: Instance,
    messages: Messages,
    options: ReasoningOptions,
    settings: LlmPredictionConfig,
) -> Flow[Sent]:
    """Return messages as an instance gets them: each thought as text, or omitted.

    Args:
        operation: The operation that asks the server.
        instance: The instance.
        messages: The messages.
        options: Which thoughts are sent, and whether the template is to keep them.
        settings: The settings of the request, among which may be the tags and the template.
    """
    if settings.raw:  # which may have the tags and the template by their wire keys
        settings = LlmPredictionConfig.from_fields(settings.to_fields())
    template, requested = OWN_TEMPLATE, tags_of_setting(settings.reasoning_parsing)
    if settings.prompt_template is not None:
        template = LlmPredictionConfig(prompt_template=settings.prompt_template)
    if options.keep:
        template = yield from keeping(operation, instance, template, requested)
    if instance.reasoning.is_rejected:
        return Sent(without_thoughts(messages), template, REJECTED_REASONING)
    if options.send is False:
        return Sent(without_thoughts(messages), template)
    contents = [message["content"] for message in messages]
    thoughts = [_tags_of(part) for content in contents for part in content if _is_whole_thought(part, content)]
    tags = yield from sent_tags(operation, instance, thoughts, requested)
    replay = known = None
    if options.send == "auto" and tags:
        try:
            replay = known = yield from replay_of(operation, instance, next(iter(tags.values())), template)
        except LMStudioModelNotFoundError:
            raise
        except LMStudioServerError:  # it says nothing about the template, so the next conversation asks again
            replay = REJECTED_REASONING
    last_user = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=-1)
    written = [
        _write(message, tags, replay, is_current=at > last_user)
        if at > last_user or options.send != "turn"
        else without_thoughts([message])[0]
        for at, message in enumerate(messages)
    ]
    return Sent(written, template, known)


def _write(
    message: Mapping[str, Any], tags: Mapping[Tags, Tags], replay: ReasoningReplay | None, *, is_current: bool
) -> dict[str, Any]:
    """Return a message with its thoughts as texts.

    Args:
        message: The message.
        tags: The tags to send, by those that thoughts have.
        replay: What the template does with thoughts; `None` sends all.
        is_current: Whether it comes after the last user message.
    """
    parts = message["content"]
    kinds = {part["type"] for part in parts}
    place = "answer" if "toolCallRequest" not in kinds else "current_call" if is_current else "earlier_call"
    is_sent = replay is None or replay.sent_by_place[place]

    def text(part: Mapping[str, Any]) -> str:
        if not (is_sent and _is_whole_thought(part, parts)):
            return ""
        if replay is None or not replay.is_bare:
            return _with_tags(part, tags[_tags_of(part)])
        gap = "\n\n" if "text" in kinds and part["text"].strip() else ""
        return f"{part['text'].strip()}{gap}"

    return {**message, "content": _content(parts, text)}


def without_thoughts(messages: Messages) -> list[dict[str, Any]]:
    return [{**message, "content": _content(message["content"], lambda _: "")} for message in messages]


def _content(content: Sequence[Mapping[str, Any]], write: Callable[[Mapping[str, Any]], str]) -> list[Any]:
    """Return the parts of a message, with each thought as a text, which is joined with those beside it."""
    written, joins = list[Mapping[str, Any]](), False
    for part in content:
        is_thought = part["type"] == "reasoning"
        own = text_part(write(part)) if is_thought else part
        if (joins or is_thought) and written and written[-1]["type"] == own["type"] == "text":
            own = text_part(written.pop()["text"] + own["text"])
        written.append(own)
        joins = is_thought
    return [part for part in written if part != text_part("")] or ([text_part("")] if content else [])


def _tags_of(part: Mapping[str, Any]) -> Tags:
    return Tags.of(part.get("startTag"), part.get("endTag"))


def _is_whole_thought(part: Mapping[str, Any], content: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a part of a message is a thought that was not cut off: it has an end, or something follows it."""
    return part["type"] == "reasoning" and bool(part.get("endTag") or part is not content[-1])


def _with_tags(part: Mapping[str, Any], tags: Tags) -> str:
    """Return a thought between tags: its own if they are the same, with the white space that the model wrote.

    A thought that the model began and did not end, because it made a call, has no end tag here either.
    """
    own = _tags_of(part)
    start = part["startTag"] if own.start == tags.start else tags.start
    is_left_open = bool(own.start) and not own.end
    end = "" if is_left_open else part["endTag"] if own.end == tags.end else tags.end
    return f"{start}{part['text']}{end}"
