"""Questions of the probe about predictions, and about what prompts are."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Unpack

from lmstudio_integrations.cli._probe.context import SMALL, ProbeContext
from lmstudio_integrations.cli._probe.payloads import (
    CITY,
    COUNT,
    FEW,
    GREETING,
    LONG_TEXT,
    OVERFLOWING,
    PATTERN,
    SOME,
    STORY,
    TOOL,
    TOOLS,
    WEATHER,
    by_identifier,
    prediction,
)
from lmstudio_integrations.errors import LMStudioServerError
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.config_dicts import LlmPredictionConfigDict


def predict_with_unknown_instance(context: ProbeContext) -> None:
    with context.wire() as wire:
        wire.stream("predict", prediction(by_identifier("lmsi-probe-none"), GREETING, FEW))


def predict_with_unknown_preset(context: ProbeContext) -> None:
    with context.wire() as wire:
        parameter = prediction(context.reference, GREETING, FEW, fuzzyPresetIdentifier="lmsi-probe no such preset")
        wire.stream("predict", parameter)


def overflow(context: ProbeContext, policy: str) -> None:
    instance = context.special(SMALL)
    config = LlmPredictionConfig.parse({"context_overflow_policy": policy, "temperature": 0.0})
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": GREETING},
        {"role": "assistant", "content": LONG_TEXT},
        {"role": "user", "content": "Which number is your favorite?"},
    ]
    with suppress(LMStudioServerError):  # which may be the policy
        instance.respond({"messages": messages}, config=config.merged(LlmPredictionConfig(max_tokens=FEW)))
    more = LlmPredictionConfig(max_tokens=OVERFLOWING, repeat_penalty=False)
    instance.complete(PATTERN, config=config.merged(more))


def overflow_by_one_message(context: ProbeContext) -> None:
    context.special(SMALL).respond(LONG_TEXT, config={"max_tokens": FEW})


def respond_in_format(context: ProbeContext, structured: Mapping[str, Any], prompt: str) -> None:
    context.main.respond(prompt, config={"structured": dict(structured), "max_tokens": SOME, "temperature": 0.0})


def respond_with_tools(
    context: ProbeContext, prompt: str, tools: Mapping[str, Any] = TOOLS, **config: Unpack[LlmPredictionConfigDict]
) -> None:
    context.main.respond(
        prompt, config={"raw_tools": dict(tools), "max_tokens": 2 * SOME, "temperature": 0.0, **config}
    )


def predict_with_settings(context: ProbeContext, settings: Sequence[Mapping[str, Any]]) -> None:
    with context.wire() as wire:
        for fields in settings:
            wire.stream("predict", prediction(context.reference, GREETING, FEW, fields))


def report_log_probabilities(context: ProbeContext) -> None:
    common: LlmPredictionConfigDict = {"log_probs": 5, "max_tokens": 1, "temperature": 1.0}
    off: LlmPredictionConfigDict = {"top_k_sampling": -1, "top_p_sampling": False, "min_p_sampling": False}
    samplers: Sequence[LlmPredictionConfigDict] = (
        off,
        {**off, "top_k_sampling": 1},
        {**off, "top_p_sampling": 0.01},
        {**off, "min_p_sampling": 1.0},
        {**off, "temperature": 0.0},
    )
    for sampler in samplers:
        context.main.respond(GREETING, config={**common, **sampler})


def report_last_token(context: ProbeContext) -> None:
    context.main.respond(GREETING, config={"log_probs": 1, "max_tokens": 4 * SOME, "temperature": 0.0})


def stop_at_string(context: ProbeContext) -> None:
    context.main.respond(COUNT, config={"stop_strings": ["\n", " "], "max_tokens": 4 * SOME, "temperature": 0.0})


def complete(context: ProbeContext) -> None:
    context.main.complete("One, two, three,", config={"max_tokens": FEW})


def alternate_conversations(context: ProbeContext) -> None:
    rules = "\n".join(f"{number}. Name the pier and the time of ferry {number}." for number in range(1, 30))
    for question in ("When does it leave?", "And back?"):
        for place in ("the island", "the city"):
            system = f"You know the ferries to {place}.\n{rules}"
            messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
            context.main.respond({"messages": messages}, config={"max_tokens": 1})


def queue(context: ProbeContext) -> None:
    specifier = by_identifier(context.special(SMALL).identifier)
    state = {"specifier": specifier, "throwIfNotFound": True}
    with context.wire() as wire:
        running = wire.open("predict", prediction(specifier, STORY, OVERFLOWING))
        wire.wait_for_text(running)
        queued = [wire.open("predict", prediction(specifier, prompt, 1)) for prompt in (GREETING, CITY)]
        wire.call("getInstanceProcessingState", state)
        wire.cancel(running)
        wire.finish(running, *queued)
        wire.call("getInstanceProcessingState", state)


def unload_while_queued(context: ProbeContext) -> None:
    identifier = context.load(SMALL).identifier
    specifier = by_identifier(identifier)
    with context.wire() as wire:
        running = wire.open("predict", prediction(specifier, STORY, OVERFLOWING))
        wire.wait_for_text(running)
        queued = wire.open("predict", prediction(specifier, GREETING, 1))
        wire.call("getInstanceProcessingState", {"specifier": specifier, "throwIfNotFound": True})
        with context.wire() as other:  # the replies on the first connection are read later
            other.call("unloadModel", {"identifier": identifier})
        wire.finish(running, queued)


def cancel(context: ProbeContext, *, after_first: bool) -> None:
    with context.wire() as wire:
        running = wire.open("predict", prediction(context.reference, STORY, OVERFLOWING))
        if after_first:
            wire.wait_for_text(running)
        wire.cancel(running)
        wire.finish(running)


def count_tokens(context: ProbeContext) -> None:
    text = "The ferry leaves at noon, and the Fähre kommt um 12 Uhr."
    context.main.tokenize(text)
    context.main.count_tokens(text)


def render_prompt(context: ProbeContext) -> None:
    context.main.apply_prompt_template(WEATHER, tools=[TOOL])
