"""Questions of the probe about reasoning: what becomes of it in the history, in fragments, and beside a format."""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations.cli._probe.context import ProbeContext
from lmstudio_integrations.cli._probe.payloads import (
    CITY,
    CITY_FORMAT,
    CONSTANT,
    FEW,
    GREETING,
    SOME,
    THINK,
    THINKING,
    THOUGHTFUL,
    config_stack,
    prediction,
    template_of_request,
)
from lmstudio_integrations.cli._probe.wire import Wire
from lmstudio_integrations.protocol.kv_config import custom_fields_of
from lmstudio_integrations.types.config_dicts import LlmPredictionConfigDict

_MEMBERS = (
    "{% for message in messages %}[{{ message.role }}: {{ message.content }} "
    "{{ message.reasoning_content or message.thinking or 'without reasoning' }}]{% endfor %}"
)
"""A template that shows where the reasoning of a message is."""

_PARSING: Any = {"enabled": True, "startString": "<think>", "endString": "</think>"}


def _render(context: ProbeContext, wire: Wire, fields: Mapping[str, Any]) -> None:
    parameter = {
        "specifier": context.reference,
        "history": {"messages": THOUGHTFUL},
        "predictionConfigStack": config_stack(fields),
        "opts": {},
    }
    wire.call("applyPromptTemplate", parameter)


def render_earlier_reasoning(context: ProbeContext) -> None:
    context.main.get_reasoning_replay()
    with context.wire() as wire:
        _render(context, wire, template_of_request(_MEMBERS))


def use_template_of_request(context: ProbeContext) -> None:
    template = template_of_request(CONSTANT)
    with context.wire() as wire:
        _render(context, wire, template)
        wire.stream("predict", prediction(context.reference, GREETING, FEW, template))


def render_with_custom_fields(context: ProbeContext) -> None:
    prefix = custom_fields_of(context.model_key)
    custom = ({f"{prefix}.preserveThinking": True}, {f"{prefix}.clearThinking": False}) if prefix else ()
    with context.wire() as wire:
        for fields in ({}, *custom):
            _render(context, wire, fields)


def reason(context: ProbeContext) -> None:
    config: LlmPredictionConfigDict = {"max_tokens": 4 * SOME, "temperature": 0.0}
    context.main.respond(THINK, config=config)
    context.main.respond(THINK, config={**config, "structured": THINKING, "reasoning_parsing": _PARSING})


def reason_in_format(context: ProbeContext) -> None:
    config: LlmPredictionConfigDict = {"enable_thinking": True, "max_tokens": 4 * SOME, "temperature": 0.0}
    context.main.respond(CITY, config={**config, "structured": CITY_FORMAT})
