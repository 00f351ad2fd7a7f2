"""Which thoughts of a conversation an instance gets, and as which text.

Whether a thought is sent depends on its place alone, so that the beginning of a conversation stays the same.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from lmstudio_integrations.client.models.reasoning.keeping import keeping
from lmstudio_integrations.client.models.reasoning.replay import OWN_TEMPLATE, replay_of
from lmstudio_integrations.client.models.reasoning.tags import sent_tags, tags_of_part, tags_of_setting
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.types.chat import text_part
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.reasoning import REJECTED_REASONING, ReasoningOptions, ReasoningReplay, Tags

Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""Messages in wire form, with reasoning."""

_NO_SETTINGS = LlmPredictionConfig()


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
    settings: LlmPredictionConfig = _NO_SETTINGS,
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
    given = {tags_of_part(part) for content in contents for part in content if _is_whole_thought(part, content)}
    own = yield from sent_tags(operation, instance, given, requested)
    replays: dict[Tags, ReasoningReplay] = {}
    if options.send == "auto":
        for tags in own.values():
            replays[tags] = yield from replay_of(operation, instance, tags, template)
    last_user = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=-1)

    def content(message: Mapping[str, Any], *, is_current: bool) -> list[Any]:
        if options.send == "turn" and not is_current:
            return _content(message["content"], lambda _: "")
        parts = message["content"]
        is_call = any(part["type"] == "toolCallRequest" for part in parts)
        gap = "\n\n" if any(part["type"] == "text" for part in parts) else ""
        place = "answer" if not is_call else "current_call" if is_current else "earlier_call"
        write = partial(_sent, own=own, replays=replays, place=place, gap=gap)
        return _content(parts, lambda part: write(part) if _is_whole_thought(part, parts) else "")

    written = [{**each, "content": content(each, is_current=at > last_user)} for at, each in enumerate(messages)]
    return Sent(written, template, next(reversed(replays.values()), None))


def _sent(
    part: Mapping[str, Any],
    own: Mapping[Tags, Tags],
    replays: Mapping[Tags, ReasoningReplay],
    place: str,
    gap: str,
) -> str:
    """Return a thought as text; empty if it is omitted.

    Args:
        part: The thought.
        own: The tags to send, by those that thoughts have.
        replays: What the template does with thoughts in these tags; without them, all are sent.
        place: Where it stands, as `ReasoningReplay` names it.
        gap: What separates a thought without tags from the text.
    """
    tags = own[tags_of_part(part)]
    replay = replays.get(tags)
    if replay is None:
        return _with_tags(part, tags)
    if not replay.sent_by_place[place]:
        return ""
    return f"{part['text'].strip()}{gap}" if replay.is_bare else _with_tags(part, tags)


def without_thoughts(messages: Messages) -> list[dict[str, Any]]:
    """Return messages without their thoughts."""
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


def _is_whole_thought(part: Mapping[str, Any], content: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a part of a message is a thought that was not cut off. Without tags, one that ends the message was."""
    if part["type"] != "reasoning":
        return False
    return bool(part.get("endTag") or not (part.get("startTag") or part is content[-1]))


def _with_tags(part: Mapping[str, Any], tags: Tags) -> str:
    """Return a thought between tags: its own if they are the same, with the white space that the model wrote."""
    given = tags_of_part(part)
    start = part["startTag"] if given.start == tags.start else tags.start
    end = part["endTag"] if given.end == tags.end else tags.end
    return f"{start}{part['text']}{end}"
