"""Earlier thoughts in a conversation: which of them an instance gets, and as which text.

The wire has no place for a thought, so it goes back as text between its tags, and the chat template decides what
becomes of it (docs/protocol.md#earlier-reasoning). A leaf, `reasoning_replay.py`, finds that out for `auto`; without
it, `auto` is `turn`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from lmstudio_integrations._support.leaves import MissingLeafError, door
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.queries import get_base_config
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioModelNotFoundError, LMStudioServerError
from lmstudio_integrations.types.chat import text_part
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.reasoning import REJECTED_REASONING, ReasoningOptions, Tags, Treatment

Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""Messages in wire form, with reasoning."""

DEFAULT_TAGS = Tags("<think>", "</think>")
_PARSING_KEY = "llm.prediction.reasoning.parsing"
_BLANK_LINES = r"\A\s*\n"


class Sent(NamedTuple):
    """A conversation as an instance gets it.

    Attributes:
        messages: The messages.
        changes: The settings that must go with them, because they change the chat template.
        by_place: What the template does with thoughts in each place, if that decided about them.
    """

    messages: Messages
    changes: LlmPredictionConfig | None = None
    by_place: Mapping[str, Treatment] | None = None


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

    Raises:
        MissingLeafError: If the template is to keep them, and this copy cannot measure what it does.
    """
    send = options.send
    if options.keep or send == "auto":
        try:
            with door("the measuring of chat templates"):
                from lmstudio_integrations.client.models.reasoning_replay import sent_by_template  # noqa: PLC0415 - a leaf
        except MissingLeafError:
            if options.keep:
                raise
            send = "turn"
        else:
            return (yield from sent_by_template(operation, instance, messages, options, settings))
    if instance.reasoning.is_rejected:
        return Sent(without_thoughts(messages), by_place=REJECTED_REASONING)
    if send is False:
        return Sent(without_thoughts(messages))
    tags = yield from sent_tags(operation, instance, tags_in(messages), settings.to_fields())
    first = start_of_turn(messages) if send == "turn" else 0
    return Sent([*without_thoughts(messages[:first]), *with_thoughts(messages[first:], tags)])


def start_of_turn(messages: Messages) -> int:
    """Return how many messages end with the last of the user."""
    return max((at for at, message in enumerate(messages, 1) if message["role"] == "user"), default=0)


# Tags -----------------------------------------------------------------------------------------------------------------


def sent_tags(
    operation: Operation, instance: Instance, thoughts: Iterable[Tags], fields: Mapping[str, Any]
) -> Flow[dict[Tags, Tags]]:
    """Return the tags with which thoughts are sent, by the tags that they have.

    Those of the instance stay. Others come from elsewhere, and are replaced by those of the instance, as is an end tag
    alone, whose thought was opened by the prompt. The settings of the request may name those of the instance.
    """
    unique, written = dict.fromkeys(thoughts), instance.reasoning.written
    is_known = unique.keys() <= written.keys()
    configured = instance.reasoning.configured or {} if is_known else (yield from base_fields(operation, instance))
    of_config = _configured_tags(configured)
    of_instance = _configured_tags(fields) or of_config or next(iter([*written]), None)
    stay = {*unique} if of_instance is None else {*written, of_config}
    return {tags: tags if all(tags) and tags in stay else of_instance or DEFAULT_TAGS for tags in unique}


def base_fields(operation: Operation, instance: Instance) -> Flow[Mapping[str, Any]]:
    """Return the settings of a prediction that sends none, by their wire keys. The instance is asked once."""
    reasoning = instance.reasoning
    if reasoning.configured is None:
        try:
            reasoning.configured = yield from get_base_config(operation, instance.specifier)
        except LMStudioModelNotFoundError:
            raise
        except LMStudioServerError:  # of 2025, without this endpoint
            reasoning.configured = {}
    return reasoning.configured


def _configured_tags(fields: Mapping[str, Any]) -> Tags | None:
    parsing = fields.get(_PARSING_KEY)
    if not is_object(parsing):
        return None
    tags = Tags.of(parsing.get("startString"), parsing.get("endString"))
    return tags if all(tags) else None


def tags_in(messages: Messages) -> list[Tags]:
    """Return the tags of the whole thoughts in messages."""
    contents = [message["content"] for message in messages]
    return [_tags_of(part) for content in contents for part in content if _is_whole_thought(part, content)]


def _tags_of(part: Mapping[str, Any]) -> Tags:
    return Tags.of(part.get("startTag"), part.get("endTag"))


def _is_whole_thought(part: Mapping[str, Any], content: Messages) -> bool:
    """Whether a part of a message is a thought that was not cut off: it has an end, or something follows it."""
    return part["type"] == "reasoning" and bool(part.get("endTag") or part is not content[-1])


# Texts ----------------------------------------------------------------------------------------------------------------


def with_thoughts(messages: Messages, tags: Mapping[Tags, Tags]) -> list[dict[str, Any]]:
    """Return messages with whole thoughts as texts.

    Args:
        messages: The messages.
        tags: The tags to send, by those that thoughts have.
    """
    return [write_thoughts(message, lambda part: _with_tags(part, tags[_tags_of(part)])) for message in messages]


def without_thoughts(messages: Messages) -> list[dict[str, Any]]:
    return [write_thoughts(message, lambda _: "") for message in messages]


def write_thoughts(message: Mapping[str, Any], write: Callable[[Mapping[str, Any]], str]) -> dict[str, Any]:
    """Return a message with each whole thought as a text, which is joined with those beside it, and without others.

    Blank lines behind a thought that is omitted at the beginning go with it.
    """
    content, written, joins = message["content"], list[Mapping[str, Any]](), False
    for part in content:
        is_thought = part["type"] == "reasoning"
        sent = text_part(write(part) if _is_whole_thought(part, content) else "") if is_thought else part
        if joins and sent["type"] == "text" and written == [text_part("")]:
            sent = text_part(re.sub(_BLANK_LINES, "", sent["text"]))
        if (joins or is_thought) and written and written[-1]["type"] == sent["type"] == "text":
            sent = text_part(written.pop()["text"] + sent["text"])
        written.append(sent)
        joins = is_thought
    parts = [part for part in written if part != text_part("")] or ([text_part("")] if content else [])
    return {**message, "content": parts}


def _with_tags(part: Mapping[str, Any], tags: Tags) -> str:
    """Return a thought between tags: its own if they are the same, with the white space that the model wrote.

    A thought that the model began and did not end, because it made a call, has no end tag here either.
    """
    before = _tags_of(part)
    start = part["startTag"] if before.start == tags.start else tags.start
    is_left_open = bool(before.start) and not before.end
    end = "" if is_left_open else part["endTag"] if before.end == tags.end else tags.end
    return f"{start}{part['text']}{end}"
