"""What the chat template of an instance does with earlier thoughts, and what of them it gets for that.

A small conversation with thoughts in each place is rendered, once per instance. `reasoning.py` imports this for
`send_reasoning="auto"` and `keep_reasoning`, and `language_model.py` for `get_reasoning_replay`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeAlias

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.chat_templates import render
from lmstudio_integrations.client.models.queries import look_up
from lmstudio_integrations.client.models.reasoning import (
    DEFAULT_TAGS,
    Messages,
    Sent,
    base_fields,
    sent_messages,
    sent_tags,
    start_of_turn,
    tags_in,
    with_thoughts,
    without_thoughts,
    write_thoughts,
)
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioModelNotFoundError,
    LMStudioPromptTemplateError,
    LMStudioServerError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol.kv_config import custom_fields_of, stack_of_fields
from lmstudio_integrations.types.chat import text_part
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.reasoning import WORST_FIRST, ReasoningOptions, Tags, Treatment
from lmstudio_integrations.types.reasoning_replay import (
    REJECTS,
    THOUGHT_FIELD,
    ReasoningReplay,
    move_thoughts,
    moves_thoughts,
)

Fields: TypeAlias = Mapping[str, Any]
"""Settings by their wire keys."""

_TEMPLATE_KEY = "llm.prediction.promptTemplate"
_OWN_TEMPLATE: Fields = {}
"""What changes the chat template of an instance: nothing."""

_SWITCHES = {
    "preserve_thinking": "true",
    "clear_thinking": "false",
    "keep_past_thinking": "true",
    "truncate_history_thinking": "false",
    "drop_thinking": "false",
}
"""The switches of templates, and the value with which each keeps thoughts, in Jinja."""


def sent_by_template(
    operation: Operation,
    instance: Instance,
    messages: Messages,
    options: ReasoningOptions,
    settings: LlmPredictionConfig,
) -> Flow[Sent]:
    """Return messages with the thoughts that the chat template takes, or is made to keep.

    Args:
        operation: The operation that asks the server.
        instance: The instance.
        messages: The messages.
        options: Which thoughts are sent, and whether the template is to keep them.
        settings: The settings of the request, among which may be the tags and the template.
    """
    fields = settings.to_fields()
    unswitched = {key: fields[key] for key in fields if key == _TEMPLATE_KEY}
    template = (yield from _keeping(operation, instance, unswitched, fields)) if options.keep else unswitched
    changes = None if template is unswitched else LlmPredictionConfig(raw={**template})
    thoughts = tags_in(messages)
    if options.send != "auto" or not thoughts or instance.reasoning.is_rejected:
        unmeasured = ReasoningOptions("always" if options.send == "auto" else options.send)
        sent = yield from sent_messages(operation, instance, messages, unmeasured, settings)
        return sent._replace(changes=changes)
    tags, by_place = (yield from sent_tags(operation, instance, thoughts, fields)), None
    try:
        before = None if template is unswitched else unswitched
        replay = yield from replay_of(operation, instance, next(iter(tags.values())), template, before)
        by_place = replay.by_place
    except LMStudioModelNotFoundError:
        raise
    except LMStudioServerError:  # it says nothing about the template, so the next conversation asks again
        replay = REJECTS
    first = start_of_turn(messages)
    written = [_write(message, tags, replay, is_current=at >= first) for at, message in enumerate(messages)]
    return Sent(written, changes, by_place)


def _write(
    message: Mapping[str, Any], tags: Mapping[Tags, Tags], replay: ReasoningReplay, *, is_current: bool
) -> dict[str, Any]:
    """Return a message with the thoughts as texts that the template takes there.

    Args:
        message: The message.
        tags: The tags to send, by those that thoughts have.
        replay: What the template does with thoughts.
        is_current: Whether it comes after the last user message.
    """
    kinds = {part["type"] for part in message["content"]}
    place = "answer" if "toolCallRequest" not in kinds else "current_call" if is_current else "earlier_call"
    gap = "\n\n" if "text" in kinds else ""

    def bare(part: Mapping[str, Any]) -> str:
        thought = part["text"].strip()
        return thought and f"{thought}{gap}"

    if not replay.sent_by_place[place]:
        return without_thoughts([message])[0]
    return write_thoughts(message, bare) if replay.is_bare else with_thoughts([message], tags)[0]


# What a template does -------------------------------------------------------------------------------------------------


class _Turn(NamedTuple):
    """A turn of the conversation that is rendered. Each text, thought and argument is in it once."""

    role: Literal["user", "assistant", "tool"]
    text: str
    thought: str = ""
    call_id: str = ""
    argument: str = ""


_EARLIER_CALL = _Turn("assistant", "charlie", "bravo", "000000001", "oscar")
_ANSWER_TO_RESULT = _Turn("assistant", "foxtrot", "echo")
_ANSWER = _Turn("assistant", "india", "hotel")
_CURRENT_CALL = _Turn("assistant", "lima", "kilo", "000000002", "papa")
_CALL_WITHOUT_TEXT = _Turn("assistant", "", "quebec", "000000003", "romeo")
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
    _CALL_WITHOUT_TEXT,
    _Turn("tool", "sierra", call_id="000000003"),
)
_SPACE = "\n\n"
"""Stands around a thought. A template that reads thoughts puts its own white space there, or none; some that do remove
line feeds only."""

_OTHER_TAG = r"(?i)(?:<[^<>\s]*|\[/?|>)(?:think|thought)[^<>\]\s]*\s*[<>\]]"
"""A tag around thoughts, such as `</mm:think>`, `[THINK]` or `<|close|>think<|sep|>`."""


def replay_of(
    operation: Operation,
    instance: Instance,
    tags: Tags | None = None,
    template: Fields = _OWN_TEMPLATE,
    unswitched: Fields | None = None,
) -> Flow[ReasoningReplay]:
    """Return what a template does with thoughts. It is measured once.

    Args:
        operation: The operation that asks the server.
        instance: The instance.
        tags: The tags of the thoughts; `None` is those of the instance.
        template: Settings that change the template, if any do.
        unswitched: The settings without what makes it keep thoughts, if they have that.

    Raises:
        LMStudioServerError: If the server did not render, for a reason that says nothing about the template.
    """
    if tags is None:
        tags = yield from _own_tags(operation, instance, {})
    # Templates with channels may reject the tags that they write themselves, and tell by others what they do.
    shown = DEFAULT_TAGS if "analysis" in tags.start else tags
    replays = instance.reasoning.replays
    key = shown, json.dumps(template, sort_keys=True) if template else ""
    if key not in replays:
        try:
            replay = yield from _measure(operation, instance, shown, template)
            if unswitched is not None and moves_thoughts(template.get(_TEMPLATE_KEY)):
                # What the server reports may be another template than the one that it uses.
                prompt = yield from _probe(operation, instance, None, unswitched)
                if prompt != (yield from _probe(operation, instance, None, template)):
                    replay = REJECTS
        except (LMStudioPromptTemplateError, LMStudioUnsupportedError):
            replay = REJECTS
        if unswitched is not None and "copied" in replay.by_place.values():
            replay = replay.switched((yield from replay_of(operation, instance, tags, unswitched)))
        replays[key] = replay
    return replays[key]


def _own_tags(operation: Operation, instance: Instance, fields: Fields) -> Flow[Tags]:
    """Return the tags of a thought that has none."""
    ((_, tags),) = (yield from sent_tags(operation, instance, [Tags("", "")], fields)).items()
    return tags


def _measure(operation: Operation, instance: Instance, tags: Tags, template: Fields) -> Flow[ReasoningReplay]:
    """Return what a prompt shows of the thoughts and calls in a conversation."""
    prompt = yield from _probe(operation, instance, tags, template)
    replay = _reading(prompt, tags)
    if all(turn.argument in prompt for turn in _TURNS):
        return replay
    # Some templates show no calls at all, and some only those without a text, for which they take a thought.
    try:
        without = yield from _probe(operation, instance, None, template)
    except LMStudioPromptTemplateError:
        return replay
    lost = [turn for turn in _TURNS if turn.argument in without and turn.argument not in prompt]
    return replace(replay, current_call="misplaced", earlier_call="misplaced") if lost else replay


def _probe(operation: Operation, instance: Instance, tags: Tags | None, template: Fields) -> Flow[str]:
    """Return the prompt of the conversation, with thoughts between tags, or without."""
    history = {"messages": [_message(turn, tags) for turn in _TURNS]}
    return (yield from render(operation, instance.specifier, history, stack=stack_of_fields(template)))


def _message(turn: _Turn, tags: Tags | None) -> dict[str, Any]:
    if turn.role == "tool":
        result = {"type": "toolCallResult", "content": turn.text, "toolCallId": turn.call_id, "name": "november"}
        return {"role": "tool", "content": [result]}
    thought = f"{tags.start}{_SPACE}{turn.thought}{_SPACE}{tags.end}" if tags and turn.thought else ""
    parts = [text_part(thought + turn.text)] if thought or turn.text else []
    if turn.call_id:
        arguments = {"value": turn.argument}
        call: dict[str, Any] = {"type": "function", "id": turn.call_id, "name": "november", "arguments": arguments}
        parts.append({"type": "toolCallRequest", "toolCallRequest": call})
    return {"role": turn.role, "content": parts}


def _reading(prompt: str, tags: Tags) -> ReasoningReplay:
    """Return what a prompt shows of the thoughts."""

    def treatment(turn: _Turn) -> Treatment:
        return _treatment(_segment(prompt, turn), turn, tags, prompt)

    def head(turn: _Turn) -> str:
        return _segment(prompt, turn).partition(tags.start)[0]

    current, earlier, answer = treatment(_CURRENT_CALL), treatment(_EARLIER_CALL), treatment(_ANSWER)
    # The template may take the text beside a call for the thought, without tags, and introduce it otherwise.
    if current == answer == "copied" and head(_CURRENT_CALL) != head(_ANSWER):
        return ReasoningReplay("kept", "stripped" if earlier == "stripped" else "kept", "copied", is_bare=True)
    # A template that omits a thought elsewhere knows what it is.
    if current == "copied" and earlier == "stripped":
        current = "kept"
    # It is shown in the last message only, so the prompt after that has lost it again.
    if current == "stripped" and _CALL_WITHOUT_TEXT.thought in prompt:
        current = "misplaced"
    answers = {answer, treatment(_ANSWER_TO_RESULT)}
    return ReasoningReplay(current, earlier, next(each for each in WORST_FIRST if each in answers))


def _segment(prompt: str, turn: _Turn) -> str:
    """Return a turn with what stands before its text, from the text before on. A template may omit a text."""
    at = _TURNS.index(turn)
    before = [prompt.find(each.text) + len(each.text) for each in _TURNS[:at] if each.text in prompt]
    after = [prompt.find(each.text) for each in _TURNS[at:] if each.text and each.text in prompt]
    return prompt[max(before, default=0) : min(after, default=len(prompt))]


def _treatment(segment: str, turn: _Turn, tags: Tags, prompt: str) -> Treatment:
    """Return what a template has done with the thought of a turn."""
    if turn.thought not in segment:
        return "misplaced" if turn.thought in prompt else "stripped"
    before, _, after = segment.partition(turn.thought)
    if before.endswith(f"{tags.start}{_SPACE}") and after == f"{_SPACE}{tags.end}":
        ahead, _, rest = before.partition(tags.start)
        is_second = tags.end in rest or ahead.rstrip().endswith(tags.end) or re.search(_OTHER_TAG, ahead)
        return "misplaced" if is_second else "copied"
    opened = before.rpartition(tags.start)[2] if tags.start in before else None
    has_own_tags = opened is None and after.strip()
    is_open = opened is not None and tags.end not in opened and before.count(tags.start) == 1
    return "kept" if has_own_tags or is_open else "misplaced"


# A template that is made to keep thoughts -----------------------------------------------------------------------------


def _keeping(operation: Operation, instance: Instance, template: Fields, fields: Fields) -> Flow[Fields]:
    """Return the settings with which the template of an instance keeps thoughts in each place.

    One that reads them only from a field of their own gets them there, and decides which of them it keeps.

    Args:
        operation: The operation that asks the server.
        instance: The instance.
        template: The template that the user has set, if any.
        fields: All settings that the user has set.

    Raises:
        LMStudioUnsupportedError: If it keeps them with none; the message says what was tried.
    """
    tags = yield from _own_tags(operation, instance, fields)
    replay = yield from replay_of(operation, instance, tags, template)
    if replay.keeps_all:
        return template
    shown = template.get(_TEMPLATE_KEY) or (yield from base_fields(operation, instance)).get(_TEMPLATE_KEY)
    prompt_template = shown if is_object(shown) else {}
    jinja = prompt_template.get("jinjaPromptTemplate")
    source = jinja.get("template") if is_object(jinja) else None

    def behind(lines: str) -> Fields:
        # A line break would become a part of the prompt.
        changed = {"type": "jinja", "jinjaPromptTemplate": {**(jinja or {}), "template": f"{lines}{source}"}}
        return {_TEMPLATE_KEY: {**prompt_template, **changed}}

    switches = {name: value for name, value in _SWITCHES.items() if isinstance(source, str) and name in source}
    line = "".join(f"{{%- set {name} = {value} %}}" for name, value in switches.items())
    tried = ["the template as it is", *(f"its switch {name}" for name in switches)]
    if switches:
        if (yield from replay_of(operation, instance, tags, behind(line), template)).keeps_all:
            return behind(line)
    else:
        missing = "it has none" if source else "it is no Jinja template"
        tried.append(f"a switch in it, but {missing if prompt_template else 'the server does not show it'}")
    if replay.current_call == "misplaced" and isinstance(source, str) and THOUGHT_FIELD in source:
        for before in (line, "") if line else ("",):
            moving = behind(f"{move_thoughts(tags)}{before}")
            unmoved = behind(before) if before else template
            if (yield from replay_of(operation, instance, tags, moving, unmoved)).keeps_turn:
                return moving
        tried.append(f"lines before it that move reasoning from the text to {THOUGHT_FIELD}")
    custom = custom_fields_of((yield from look_up(operation, "llm", instance.specifier)).model_key)
    if custom is not None:
        field = f"{custom}.preserveThinking"
        configured = {**template, field: True}
        if (yield from replay_of(operation, instance, tags, configured, template)).keeps_all:
            return configured
        tried.append(f"the custom field {field}")
    raise LMStudioUnsupportedError(
        f"keep_reasoning=True: the chat template of {instance.identifier!r} does not keep the reasoning of earlier "
        f"turns (tried: {', '.join(tried)}); omit keep_reasoning, load the model with a template that keeps it, "
        "or write it as text with send_reasoning='always'"
    )
