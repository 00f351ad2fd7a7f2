"""What the chat template of an instance does with thoughts: measured, once per instance, tags and template.

A small conversation is rendered that has a thought in each place, and the prompt shows what has become of it.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from lmstudio_integrations.client.models.reasoning.tags import tags_of_instance
from lmstudio_integrations.client.models.rendering import render
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioPromptTemplateError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol.kv_config import stack_of
from lmstudio_integrations.types.chat import text_part
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.reasoning import REJECTED_REASONING, WORST_FIRST, ReasoningReplay, Tags, Treatment

OWN_TEMPLATE = LlmPredictionConfig()
"""What changes the chat template of an instance: nothing."""


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


def replay_of(
    operation: Operation, instance: Instance, tags: Tags | None = None, template: LlmPredictionConfig = OWN_TEMPLATE
) -> Flow[ReasoningReplay]:
    """Return what a template does with thoughts. It is measured once.

    Args:
        operation: The operation that asks the server.
        instance: The instance.
        tags: The tags of the thoughts; `None` is those of the instance.
        template: Settings that change the template.

    Raises:
        LMStudioServerError: If the server did not render, for a reason that says nothing about the template.
    """
    if tags is None:
        tags = yield from tags_of_instance(operation, instance)
    known, fields = instance.reasoning.replays, template.to_fields()
    key = tags, json.dumps(fields, sort_keys=True) if fields else ""
    if key not in known:
        known[key] = yield from _measure(operation, instance, tags, template)
    return known[key]


def _measure(
    operation: Operation, instance: Instance, tags: Tags, template: LlmPredictionConfig
) -> Flow[ReasoningReplay]:
    prompt = yield from _render(operation, instance, template, lambda turn: _tag(turn, tags))
    if prompt is not None:
        return _reading(prompt, tags)
    # The template may take the text beside a call for the thought, and forbid the tags that it writes itself.
    prompt = yield from _render(operation, instance, template, lambda turn: turn.thought if turn.call_id else turn.text)
    return REJECTED_REASONING if prompt is None else _reading_of_bare(prompt)


def _tag(turn: _Turn, tags: Tags) -> str:
    return f"{tags.start}{_SPACE}{turn.thought}{_SPACE}{tags.end}{turn.text}"


def _render(
    operation: Operation, instance: Instance, template: LlmPredictionConfig, content: Callable[[_Turn], str]
) -> Flow[str | None]:
    """Return the conversation as a prompt, with this content of the assistant; `None` if it is rejected."""
    messages = [_message(turn, content) for turn in _TURNS]
    try:
        return (yield from render(operation, instance.specifier, {"messages": messages}, stack=stack_of(template)))
    except (LMStudioPromptTemplateError, LMStudioUnsupportedError):
        return None


def _message(turn: _Turn, content: Callable[[_Turn], str]) -> dict[str, Any]:
    if turn.role == "tool":
        result = {"type": "toolCallResult", "content": turn.text, "toolCallId": turn.call_id, "name": "november"}
        return {"role": "tool", "content": [result]}
    if turn.role == "user":
        return {"role": "user", "content": [text_part(turn.text)]}
    parts = [text_part(content(turn))]
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
    head, thought, _ = segments[_CURRENT_CALL].partition(_CURRENT_CALL.thought)
    if not thought or head == segments[_ANSWER]:
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
