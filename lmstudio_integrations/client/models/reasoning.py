"""Earlier thoughts in a conversation: what is sent of them, and what the chat template of an instance does with them.

The wire has no place for a thought, so it goes back as text between its tags, and the template decides
(docs/protocol.md#earlier-reasoning). First how a template is measured, and made to keep what it would omit; then which
thoughts an instance gets, and as which text.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal, NamedTuple, TypeAlias

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.models.queries import get_base_config, look_up
from lmstudio_integrations.client.models.state import Configured, Instance, Specifier
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioModelNotFoundError,
    LMStudioPromptTemplateError,
    LMStudioServerError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol.kv_config import custom_fields_of, stack_of
from lmstudio_integrations.protocol.requests import ApplyPromptTemplate, TemplateParameters
from lmstudio_integrations.types.chat import text_part
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.reasoning import (
    REJECTED_REASONING,
    THOUGHT_FIELD,
    WORST_FIRST,
    ReasoningOptions,
    ReasoningReplay,
    Tags,
    Treatment,
    move_thoughts,
    moves_thoughts,
)

NO_FLAGS: TemplateParameters = {}
_NO_LAYERS: Mapping[str, Any] = {"layers": []}


def render(
    operation: Operation,
    specifier: Specifier,
    history: Mapping[str, Any],
    flags: TemplateParameters = NO_FLAGS,
    stack: Mapping[str, Any] = _NO_LAYERS,
) -> Flow[str]:
    """Return a conversation in wire form as the prompt that an instance would get. The model is not loaded for it."""
    parameter = ApplyPromptTemplate(specifier=specifier, history=history, predictionConfigStack=stack, opts=flags)
    return (yield from operation.call("llm", "applyPromptTemplate", parameter, _format, label="Prompt template"))


def _format(result: Any) -> str:
    prompt = result["formatted"]
    if not isinstance(prompt, str):
        raise TypeError(f"expected a string; got {type(prompt).__name__}")
    return prompt


@cache
def own_template() -> LlmPredictionConfig:
    """Return what changes the chat template of an instance: nothing. The first config that is made costs 11 ms."""
    return LlmPredictionConfig()


_DEFAULT = Tags("<think>", "</think>")
_PARSING_KEY = "llm.prediction.reasoning.parsing"
_TEMPLATE_KEY = "llm.prediction.promptTemplate"

_SWITCHES = {
    "preserve_thinking": "true",
    "clear_thinking": "false",
    "keep_past_thinking": "true",
    "truncate_history_thinking": "false",
    "drop_thinking": "false",
}
"""The switches of templates, and the value with which each keeps thoughts, in Jinja."""


# Tags -----------------------------------------------------------------------------------------------------------------


def tags_of_setting(parsing: object) -> Tags | None:
    if not is_object(parsing):
        return None
    tags = Tags.of(parsing.get("startString"), parsing.get("endString"))
    return tags if all(tags) else None


def sent_tags(
    operation: Operation, instance: Instance, thoughts: Iterable[Tags], requested: Tags | None
) -> Flow[dict[Tags, Tags]]:
    """Return the tags with which thoughts are sent, by the tags that they have.

    Those of the instance stay. Others come from elsewhere, and are replaced by those of the instance, as is an end tag
    alone, whose thought was opened by the prompt.
    """
    found, written = dict.fromkeys(thoughts), instance.reasoning.written
    is_known = found.keys() <= written.keys()
    configured = instance.reasoning.configured if is_known else (yield from _configured_in(operation, instance))
    of_config = None if configured is None else configured.tags
    of_instance = requested or of_config or next(iter([*written]), None)
    stay = {*found} if of_instance is None else {*written, of_config}
    return {tags: tags if all(tags) and tags in stay else of_instance or _DEFAULT for tags in found}


def _configured_in(operation: Operation, instance: Instance) -> Flow[Configured]:
    """Return what the configuration of an instance says; it is asked once."""
    known = instance.reasoning
    if known.configured is None:
        fields: Mapping[str, Any] = {}
        try:
            fields = yield from get_base_config(operation, instance.specifier)
        except LMStudioModelNotFoundError:
            raise
        except LMStudioServerError:  # of 2025, without this endpoint
            pass
        template = fields.get(_TEMPLATE_KEY)
        known.configured = Configured(
            tags_of_setting(fields.get(_PARSING_KEY)), template if is_object(template) else None
        )
    return known.configured


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
    template: LlmPredictionConfig | None = None,
    unswitched: LlmPredictionConfig | None = None,
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
        ((_, tags),) = (yield from sent_tags(operation, instance, [Tags("", "")], None)).items()
    # Templates with channels may reject the tags that they write themselves, and tell by others what they do.
    shown = _DEFAULT if "analysis" in tags.start else tags
    template = own_template() if template is None else template
    known, fields = instance.reasoning.replays, template.to_fields()
    key = shown, json.dumps(fields, sort_keys=True) if fields else ""
    if key not in known:
        try:
            replay = yield from _measure(operation, instance, shown, template)
            if unswitched is not None and moves_thoughts(template.prompt_template):
                # What the server reports may be another template than the one that it uses.
                own = yield from _probe(operation, instance, None, unswitched)
                if own != (yield from _probe(operation, instance, None, template)):
                    replay = REJECTED_REASONING
        except (LMStudioPromptTemplateError, LMStudioUnsupportedError):
            replay = REJECTED_REASONING
        if unswitched is not None and "copied" in replay.by_place.values():
            replay = replay.switched((yield from replay_of(operation, instance, tags, unswitched)))
        known[key] = replay
    return known[key]


def _measure(
    operation: Operation, instance: Instance, tags: Tags, template: LlmPredictionConfig
) -> Flow[ReasoningReplay]:
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


def _probe(operation: Operation, instance: Instance, tags: Tags | None, template: LlmPredictionConfig) -> Flow[str]:
    """Return the prompt of the conversation, with thoughts between tags, or without."""
    history = {"messages": [_message(turn, tags) for turn in _TURNS]}
    return (yield from render(operation, instance.specifier, history, stack=stack_of(template)))


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


def keeping(
    operation: Operation, instance: Instance, template: LlmPredictionConfig, requested: Tags | None
) -> Flow[LlmPredictionConfig]:
    """Return the settings with which the template of an instance keeps thoughts in each place.

    One that reads them only from a field of their own gets them there, and decides which of them it keeps.

    Args:
        operation: The operation that asks the server.
        instance: The instance.
        template: The template that the user has set.
        requested: The tags that the user has set.

    Raises:
        LMStudioUnsupportedError: If it keeps them with none; the message says what was tried.
    """
    ((_, tags),) = (yield from sent_tags(operation, instance, [Tags("", "")], requested)).items()
    replay = yield from replay_of(operation, instance, tags, template)
    if replay.keeps_all:
        return template
    own = template.prompt_template or (yield from _configured_in(operation, instance)).template
    jinja = (own or {}).get("jinjaPromptTemplate")
    source = jinja.get("template") if is_object(jinja) else None

    def behind(lines: str) -> LlmPredictionConfig:
        # A line break would become a part of the prompt.
        changed = {
            **(own or {}),
            "type": "jinja",
            "jinjaPromptTemplate": {**(jinja or {}), "template": f"{lines}{source}"},
        }
        return LlmPredictionConfig(prompt_template=changed)

    switches = {name: value for name, value in _SWITCHES.items() if isinstance(source, str) and name in source}
    line = "".join(f"{{%- set {name} = {value} %}}" for name, value in switches.items())
    tried = ["the template as it is", *(f"its switch {name}" for name in switches)]
    if switches:
        if (yield from replay_of(operation, instance, tags, behind(line), template)).keeps_all:
            return behind(line)
    else:
        none = "the server does not show it" if own is None else "it has none" if source else "it is no Jinja template"
        tried.append(f"a switch in it, but {none}")
    if replay.current_call == "misplaced" and isinstance(source, str) and THOUGHT_FIELD in source:
        for before in (line, "") if line else ("",):
            moving = behind(f"{move_thoughts(tags)}{before}")
            unmoved = behind(before) if before else template
            if (yield from replay_of(operation, instance, tags, moving, unmoved)).keeps_turn:
                return moving
        tried.append(f"lines before it that move reasoning from the text to {THOUGHT_FIELD}")
    fields = custom_fields_of((yield from look_up(operation, "llm", instance.specifier)).model_key)
    if fields is not None:
        field = f"{fields}.preserveThinking"
        configured = template.merged(LlmPredictionConfig(raw={field: True}))
        if (yield from replay_of(operation, instance, tags, configured, template)).keeps_all:
            return configured
        tried.append(f"the custom field {field}")
    raise LMStudioUnsupportedError(
        f"keep_reasoning=True: the chat template of {instance.identifier!r} does not keep the reasoning of earlier "
        f"turns (tried: {', '.join(tried)}); omit keep_reasoning, load the model with a template that keeps it, "
        "or write it as text with send_reasoning='always'"
    )


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
    template: LlmPredictionConfig
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
    template, requested = own_template(), tags_of_setting(settings.reasoning_parsing)
    if settings.prompt_template is not None:
        template = LlmPredictionConfig(prompt_template=settings.prompt_template)
    unswitched = template
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
            own = next(iter(tags.values()))
            before = None if template is unswitched else unswitched
            replay = known = yield from replay_of(operation, instance, own, template, before)
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
    """Return the parts of a message, with each thought as a text, which is joined with those beside it.

    Blank lines behind a thought that is omitted at the beginning go with it.
    """
    written, joins = list[Mapping[str, Any]](), False
    for part in content:
        is_thought = part["type"] == "reasoning"
        own = text_part(write(part)) if is_thought else part
        if joins and own["type"] == "text" and written == [text_part("")]:
            own = text_part(re.sub(_BLANK_LINES, "", own["text"]))
        if (joins or is_thought) and written and written[-1]["type"] == own["type"] == "text":
            own = text_part(written.pop()["text"] + own["text"])
        written.append(own)
        joins = is_thought
    return [part for part in written if part != text_part("")] or ([text_part("")] if content else [])


_BLANK_LINES = r"\A\s*\n"


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
