"""What the chat template of an instance does with thoughts, and how it is made to keep those of all turns.

A small conversation is rendered that has a thought in each place, once per instance, and the prompt shows what has
become of it. For `keep_reasoning`, it is rendered again with what may help. Some templates have a switch, but the
protocol passes no setting to a template by its name. There are two ways: a line before the template that sets the
switch, or a custom field of a model of LM Studio's catalog.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.models.queries import get_base_config, look_up
from lmstudio_integrations.client.models.rendering import render
from lmstudio_integrations.client.models.state import Configured, Instance
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioModelNotFoundError,
    LMStudioPromptTemplateError,
    LMStudioServerError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol.kv_config import custom_fields_of, stack_of
from lmstudio_integrations.types.chat import text_part
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.reasoning import REJECTED_REASONING, WORST_FIRST, ReasoningReplay, Tags, Treatment

OWN_TEMPLATE = LlmPredictionConfig()
"""What changes the chat template of an instance: nothing."""

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
        ((_, tags),) = (yield from sent_tags(operation, instance, [Tags("", "")], None)).items()
    # Templates with channels may reject the tags that they write themselves, and tell by others what they do.
    shown = _DEFAULT if "analysis" in tags.start else tags
    known, fields = instance.reasoning.replays, template.to_fields()
    key = shown, json.dumps(fields, sort_keys=True) if fields else ""
    if key not in known:
        history = {"messages": [_message(turn, shown) for turn in _TURNS]}
        try:
            prompt = yield from render(operation, instance.specifier, history, stack=stack_of(template))
        except (LMStudioPromptTemplateError, LMStudioUnsupportedError):
            known[key] = REJECTED_REASONING
        else:
            known[key] = _reading(prompt, shown)
    return known[key]


def _message(turn: _Turn, tags: Tags) -> dict[str, Any]:
    if turn.role == "tool":
        result = {"type": "toolCallResult", "content": turn.text, "toolCallId": turn.call_id, "name": "november"}
        return {"role": "tool", "content": [result]}
    thought = f"{tags.start}{_SPACE}{turn.thought}{_SPACE}{tags.end}" if turn.thought else ""
    parts = [text_part(thought + turn.text)]
    if turn.call_id:
        call: dict[str, Any] = {"type": "function", "id": turn.call_id, "name": "november", "arguments": {}}
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
    answers = {answer, treatment(_ANSWER_TO_RESULT)}
    return ReasoningReplay(current, earlier, next(each for each in WORST_FIRST if each in answers))


def _segment(prompt: str, turn: _Turn) -> str:
    """Return a turn with what stands before its text, from the text before on. A template may omit a text."""
    at = _TURNS.index(turn)
    before = [prompt.find(each.text) + len(each.text) for each in _TURNS[:at] if each.text in prompt]
    after = [prompt.find(each.text) for each in _TURNS[at:] if each.text in prompt]
    return prompt[max(before, default=0) : min(after, default=len(prompt))]


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


# A template that is made to keep thoughts -----------------------------------------------------------------------------


def keeping(
    operation: Operation, instance: Instance, template: LlmPredictionConfig, requested: Tags | None
) -> Flow[LlmPredictionConfig]:
    """Return the settings with which the template of an instance keeps thoughts in each place.

    Args:
        operation: The operation that asks the server.
        instance: The instance.
        template: The template that the user has set.
        requested: The tags that the user has set.

    Raises:
        LMStudioUnsupportedError: If it keeps them with none; the message says what was tried.
    """
    ((_, tags),) = (yield from sent_tags(operation, instance, [Tags("", "")], requested)).items()
    if (yield from replay_of(operation, instance, tags, template)).keeps_all:
        return template
    own = template.prompt_template or (yield from _configured_in(operation, instance)).template
    jinja = (own or {}).get("jinjaPromptTemplate")
    source = jinja.get("template") if is_object(jinja) else None
    switches = {name: value for name, value in _SWITCHES.items() if isinstance(source, str) and name in source}
    tried = ["the template as it is", *(f"its switch {name}" for name in switches)]
    if own and is_object(jinja) and switches:
        # A line break would become a part of the prompt.
        line = "".join(f"{{%- set {name} = {value} %}}" for name, value in switches.items())
        jinja = {**jinja, "template": f"{line}{source}"}
        switched = LlmPredictionConfig(prompt_template={**own, "type": "jinja", "jinjaPromptTemplate": jinja})
        if (yield from replay_of(operation, instance, tags, switched)).keeps_all:
            return switched
    else:
        none = "the server does not show it" if own is None else "it has none" if source else "it is no Jinja template"
        tried.append(f"a switch in it, but {none}")
    fields = custom_fields_of((yield from look_up(operation, "llm", instance.specifier)).model_key)
    if fields is not None:
        field = f"{fields}.preserveThinking"
        configured = template.merged(LlmPredictionConfig(raw={field: True}))
        if (yield from replay_of(operation, instance, tags, configured)).keeps_all:
            return configured
        tried.append(f"the custom field {field}")
    raise LMStudioUnsupportedError(
        f"keep_reasoning=True: the chat template of {instance.identifier!r} does not keep the reasoning of earlier "
        f"turns (tried: {', '.join(tried)}); omit keep_reasoning, load the model with a template that keeps it, "
        "or write it as text with send_reasoning='always'"
    )
