"""The flows about earlier thoughts: what the chat template of an instance does with them, and what is sent of them.

The wire has no place for a thought, so it goes back as text between its tags, and the template decides
(docs/protocol.md#earlier-reasoning). What it decides is measured, once per instance and tags, before the first
conversation with a thought: a small conversation is rendered that has one in each place. Whether a thought is sent
depends on its place alone, so that the beginning of a conversation stays the same.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.models.rendering import render
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioModelNotFoundError,
    LMStudioPromptTemplateError,
    LMStudioServerError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol.requests import BasePredictionConfig
from lmstudio_integrations.types.reasoning import (
    REJECTED_REASONING,
    WORST_FIRST,
    ReasoningReplay,
    SendReasoning,
    Tags,
    Treatment,
)

Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""Messages in wire form, with reasoning."""

_DEFAULT_TAGS = Tags("<think>", "</think>")
_PARSING_KEY = "llm.prediction.reasoning.parsing"

# What is sent ---------------------------------------------------------------------------------------------------------


def sent_messages(
    operation: Operation, instance: Instance, messages: Messages, mode: SendReasoning, parsing: object = None
) -> Flow[list[dict[str, Any]]]:
    """Return messages as an instance gets them: each thought as text, or omitted.

    Args:
        operation: The operation that asks the server.
        instance: The instance.
        messages: The messages.
        mode: Which thoughts are sent.
        parsing: The setting `reasoning_parsing`, which has the tags if the user has set them.
    """
    contents = [message["content"] for message in messages]
    given = {_tags_of_part(part) for content in contents for part in content if _is_whole_thought(part, content)}
    if mode is False or instance.reasoning.is_rejected or not given:
        return without_thoughts(messages)
    own = yield from _own_tags(operation, instance, given, _tags_of_setting(parsing))
    replays: dict[Tags, ReasoningReplay] = {}
    if mode == "auto":
        for tags in own.values():
            replays[tags] = yield from replay_of(operation, instance, tags)
    last_user = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=-1)

    def content(message: Mapping[str, Any], *, is_current: bool) -> list[Any]:
        if mode == "turn" and not is_current:
            return _content(message["content"], lambda _: "")
        parts = message["content"]
        is_call = any(part["type"] == "toolCallRequest" for part in parts)
        gap = "\n\n" if any(part["type"] == "text" for part in parts) else ""
        write = partial(_sent, own=own, replays=replays, place=(is_call, is_current), gap=gap)
        return _content(parts, lambda part: write(part) if _is_whole_thought(part, parts) else "")

    return [{**each, "content": content(each, is_current=at > last_user)} for at, each in enumerate(messages)]


def _sent(
    part: Mapping[str, Any],
    own: Mapping[Tags, Tags],
    replays: Mapping[Tags, ReasoningReplay],
    place: tuple[bool, bool],
    gap: str,
) -> str:
    """Return a thought as text; empty if it is omitted.

    Args:
        part: The thought.
        own: The tags to send, by those that thoughts have.
        replays: What the template does with thoughts in these tags; without them, all are sent.
        place: Whether it stands before a call, and in the current turn.
        gap: What separates a thought without tags from the text.
    """
    tags = own[_tags_of_part(part)]
    replay = replays.get(tags)
    if replay is None:
        return _with_tags(part, tags)
    is_call, is_current = place
    sends_call = replay.sends_current_calls if is_current else replay.sends_earlier_calls
    if not (sends_call if is_call else replay.sends_answers):
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
        own = _text(write(part)) if is_thought else part
        if (joins or is_thought) and written and written[-1]["type"] == own["type"] == "text":
            own = _text(written.pop()["text"] + own["text"])
        written.append(own)
        joins = is_thought
    return [part for part in written if part != _text("")] or ([_text("")] if content else [])


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _is_whole_thought(part: Mapping[str, Any], content: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a part of a message is a thought that was not cut off. Without tags, one that ends the message was."""
    if part["type"] != "reasoning":
        return False
    return bool(part.get("endTag") or not (part.get("startTag") or part is content[-1]))


def _with_tags(part: Mapping[str, Any], tags: Tags) -> str:
    """Return a thought between tags: its own if they are the same, with the white space that the model wrote."""
    given = _tags_of_part(part)
    start = part["startTag"] if given.start == tags.start else tags.start
    end = part["endTag"] if given.end == tags.end else tags.end
    return f"{start}{part['text']}{end}"


# Tags -----------------------------------------------------------------------------------------------------------------


def _tags_of_part(part: Mapping[str, Any]) -> Tags:
    return Tags.of(part.get("startTag"), part.get("endTag"))


def _tags_of_setting(parsing: object) -> Tags | None:
    """Return the tags of the setting `reasoning_parsing`."""
    if not is_object(parsing):
        return None
    tags = Tags.of(parsing.get("startString"), parsing.get("endString"))
    return tags if all(tags) else None


def _own_tags(
    operation: Operation, instance: Instance, given: set[Tags], of_call: Tags | None
) -> Flow[dict[Tags, Tags]]:
    """Return the tags with which thoughts are sent, by the tags that they have.

    Those of the instance stay. Others come from elsewhere, and are replaced by those of the instance.
    """
    known = instance.reasoning
    if not (given <= {*known.written, of_call} or known.is_configured):
        known.configured = yield from _configured_tags(operation, instance)
        known.is_configured = True
    of_instance = of_call or known.configured or min(known.written, default=None)
    stay = given if of_instance is None else given & {*known.written, known.configured, of_call}
    return {tags: tags if all(tags) and tags in stay else _replaced(tags, of_instance) for tags in given}


def _replaced(tags: Tags, of_instance: Tags | None) -> Tags:
    """Return the tags in place of others. A thought that has only an end tag was opened by the prompt."""
    return of_instance or Tags(_DEFAULT_TAGS.start, tags.end or _DEFAULT_TAGS.end)


def _configured_tags(operation: Operation, instance: Instance) -> Flow[Tags | None]:
    """Return the tags of the configuration of an instance; `None` if the server does not say."""
    parameter = BasePredictionConfig(specifier=instance.specifier)
    try:
        fields = yield from operation.call(
            "llm", "getBasePredictionConfig", parameter, _fields, label="Prediction defaults"
        )
    except LMStudioModelNotFoundError:
        raise
    except LMStudioServerError:  # of 2025, without this endpoint
        return None
    return _tags_of_setting(fields.get(_PARSING_KEY))


def _fields(config: Any) -> dict[str, Any]:
    """Return the settings of a configuration by their keys."""
    return {str(each["key"]): each.get("value") for each in config["fields"]}


# What the template does -----------------------------------------------------------------------------------------------


class _Turn(NamedTuple):
    """A turn of the conversation that is rendered. Each text is in it once."""

    role: Literal["user", "assistant", "tool"]
    text: str
    thought: str = ""
    call_id: str = ""


_EARLIER_CALL = _Turn("assistant", "charlie", "bravo", "000000001")
_ANSWER_TO_RESULT = _Turn("assistant", "foxtrot", "echo")
_ANSWER = _Turn("assistant", "india", "hotel")
_CURRENT_CALL = _Turn("assistant", "lima", "kilo", "000000002")
_TURNS = (
    _Turn("user", "alfa"),
    _EARLIER_CALL,
    _Turn("tool", "delta", call_id="000000001"),
    _ANSWER_TO_RESULT,
    _Turn("user", "golf"),
    _ANSWER,
    _Turn("user", "juliett"),
    _CURRENT_CALL,
    _Turn("tool", "mike", call_id="000000002"),
)
_SPACE = "  "
"""Stands around a thought. A template that reads thoughts puts its own white space there, or none."""


def replay_of(operation: Operation, instance: Instance, tags: Tags | None = None) -> Flow[ReasoningReplay]:
    """Return what the chat template of an instance does with thoughts in tags, by default in its own."""
    if tags is None:
        tags = (yield from _own_tags(operation, instance, {Tags("", "")}, None))[Tags("", "")]
    known = instance.reasoning.replays
    if tags not in known:
        try:
            known[tags] = yield from _measured(operation, instance, tags)
        except LMStudioModelNotFoundError:
            raise
        except LMStudioServerError:  # it says nothing about the template, so the next conversation asks again
            return REJECTED_REASONING
    return known[tags]


def _measured(operation: Operation, instance: Instance, tags: Tags) -> Flow[ReasoningReplay]:
    prompt = yield from _rendered(operation, instance, lambda turn: _tagged(turn, tags))
    if prompt is not None:
        return _reading(prompt, tags)
    # The template may take the text beside a call for the thought, and forbid the tags that it writes itself.
    prompt = yield from _rendered(operation, instance, lambda turn: turn.thought if turn.call_id else turn.text)
    return REJECTED_REASONING if prompt is None else _reading_of_bare(prompt)


def _tagged(turn: _Turn, tags: Tags) -> str:
    return f"{tags.start}{_SPACE}{turn.thought}{_SPACE}{tags.end}{turn.text}"


def _rendered(operation: Operation, instance: Instance, content: Callable[[_Turn], str]) -> Flow[str | None]:
    """Return the conversation as a prompt, with this content of the assistant; `None` if it is rejected."""
    messages = [_message(turn, content) for turn in _TURNS]
    try:
        return (yield from render(operation, instance.specifier, {"messages": messages}))
    except (LMStudioPromptTemplateError, LMStudioUnsupportedError):
        return None


def _message(turn: _Turn, content: Callable[[_Turn], str]) -> dict[str, Any]:
    if turn.role == "tool":
        result = {"type": "toolCallResult", "content": turn.text, "toolCallId": turn.call_id, "name": "november"}
        return {"role": "tool", "content": [result]}
    if turn.role == "user":
        return {"role": "user", "content": [_text(turn.text)]}
    parts = [_text(content(turn))]
    if turn.call_id:
        call: dict[str, Any] = {"type": "function", "id": turn.call_id, "name": "november", "arguments": {}}
        parts.append({"type": "toolCallRequest", "toolCallRequest": call})
    return {"role": "assistant", "content": parts}


def _reading(prompt: str, tags: Tags) -> ReasoningReplay:
    """Return what a prompt shows of the thoughts."""
    segments = dict(_segments(prompt))

    def treatment(turn: _Turn) -> Treatment:
        return _treatment(segments[turn], turn, tags, prompt)

    current, earlier, answer = treatment(_CURRENT_CALL), treatment(_EARLIER_CALL), treatment(_ANSWER)
    if current == answer == "copied" and _head(segments[_CURRENT_CALL], tags) != _head(segments[_ANSWER], tags):
        return ReasoningReplay("kept", "stripped" if earlier == "stripped" else "kept", "copied", is_bare=True)
    # A template that omits a thought elsewhere knows what it is.
    if current == "copied" and earlier == "stripped":
        current = "kept"
    answers = {answer, treatment(_ANSWER_TO_RESULT)}
    return ReasoningReplay(current, earlier, next(each for each in WORST_FIRST if each in answers))


def _reading_of_bare(prompt: str) -> ReasoningReplay:
    """Return what a prompt shows of thoughts without tags: whether they are introduced otherwise than an answer."""
    segments = dict(_segments(prompt))
    head, found, _ = segments[_CURRENT_CALL].partition(_CURRENT_CALL.thought)
    if not found or head == segments[_ANSWER]:
        return REJECTED_REASONING
    is_kept = _EARLIER_CALL.thought in segments[_EARLIER_CALL]
    return ReasoningReplay("kept", "kept" if is_kept else "stripped", "rejected", is_bare=True)


def _segments(prompt: str) -> Iterator[tuple[_Turn, str]]:
    """Yield each turn with what stands before its text, from the text before on. A template may omit a text."""
    places, start = list[tuple[int, int]](), 0
    for turn in _TURNS:
        at = prompt.find(turn.text, start)
        places.append((at, at + len(turn.text)) if at >= 0 else (-1, start))
        start = places[-1][1]
    for at, turn in enumerate(_TURNS):
        begin = places[at - 1][1] if at else 0
        end = next((place for place, _ in places[at:] if place >= 0), len(prompt))
        yield turn, prompt[begin:end]


def _head(segment: str, tags: Tags) -> str:
    return segment.partition(tags.start)[0]


def _treatment(segment: str, turn: _Turn, tags: Tags, prompt: str) -> Treatment:
    """Return what a template has done with the thought of a turn."""
    if turn.thought not in segment:
        return "misplaced" if turn.thought in prompt else "stripped"
    before, _, after = segment.partition(turn.thought)
    if before.endswith(f"{tags.start}{_SPACE}") and after == f"{_SPACE}{tags.end}":
        ahead, _, rest = before.partition(tags.start)
        is_second = tags.end in rest or ahead.rstrip().endswith(tags.end)
        return "misplaced" if is_second else "copied"
    opened = before.rpartition(tags.start)[2] if tags.start in before else None
    has_own_tags = opened is None and after.strip()
    is_open = opened is not None and tags.end not in opened and before.count(tags.start) == 1
    return "kept" if has_own_tags or is_open else "misplaced"
