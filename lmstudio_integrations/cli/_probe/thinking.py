"""Rows of the probe about reasoning: what becomes of it in the history, in fragments, and beside a format."""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations.cli._probe.bench import Bench
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


def _render(bench: Bench, wire: Wire, fields: Mapping[str, Any]) -> None:
    parameter = {
        "specifier": bench.reference,
        "history": {"messages": THOUGHTFUL},
        "predictionConfigStack": config_stack(fields),
        "opts": {},
    }
    wire.call("applyPromptTemplate", parameter)


def render_earlier_reasoning(bench: Bench) -> None:
    bench.main.get_reasoning_replay()
    with bench.wire() as wire:
        _render(bench, wire, template_of_request(_MEMBERS))


def use_template_of_request(bench: Bench) -> None:
    template = template_of_request(CONSTANT)
    with bench.wire() as wire:
        _render(bench, wire, template)
        wire.stream("predict", prediction(bench.reference, GREETING, FEW, template))


def render_with_custom_fields(bench: Bench) -> None:
    prefix = custom_fields_of(bench.model_key)
    custom = ({f"{prefix}.preserveThinking": True}, {f"{prefix}.clearThinking": False}) if prefix else ()
    with bench.wire() as wire:
        for fields in ({}, *custom):
            _render(bench, wire, fields)


def think(bench: Bench) -> None:
    config: LlmPredictionConfigDict = {"max_tokens": 4 * SOME, "temperature": 0.0}
    bench.main.respond(THINK, config=config)
    bench.main.respond(THINK, config={**config, "structured": THINKING, "reasoning_parsing": _PARSING})


def think_in_format(bench: Bench) -> None:
    config: LlmPredictionConfigDict = {"enable_thinking": True, "max_tokens": 4 * SOME, "temperature": 0.0}
    bench.main.respond(CITY, config={**config, "structured": CITY_FORMAT})
