"""Questions of the probe about predictions, and about what prompts are."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, Unpack

from lmstudio_integrations.errors import LMStudioServerError
from lmstudio_integrations.types._config_base import checked
from lmstudio_integrations.types.config_dicts import LlmPredictionConfigDict
from tools.probe.context import SMALL, ProbeContext
from tools.probe.question import Question, register
from tools.probe.wire import GREETING, by_identifier, prediction

QUESTIONS: list[Question] = []
question = partial(register, QUESTIONS)

OVERFLOW = "What does the policy {} do with a conversation, and a response, that do not fit?"

OVERFLOWING = 400
"""Tokens of a response that does not fit into the small context window."""

COUNT = "Count from 1 to 1000 in words, one number a line."

PATTERN = "tick tock " * 20
"""A text that models continue without an end, so that the response fills a small context window."""

STORY = "Tell a very long story about a ferry."
"""A prompt whose response goes on until it is canceled."""

LONG_TEXT = " ".join(f"The ferry number {number} leaves from pier {number % 7}." for number in range(1, 61))
"""More tokens than the small context window has, for any tokenizer."""

WEATHER = "What is the weather in Oslo? Use the tool."
CITY = "Name a city."

_CITY_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CITY_FORMAT = {"type": "json", "jsonSchema": _CITY_SCHEMA}

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Return the weather in a city.", "parameters": _CITY_SCHEMA},
}
"""A tool that is only described. It does not exist, so no response can run it."""

TOOLS = {"type": "toolArray", "tools": [TOOL]}


@question("unknown-instance", "error-codes", "Which error reports a prediction of an instance that is not loaded?")
def predict_with_unknown_instance(context: ProbeContext) -> None:
    with context.wire() as wire:
        wire.stream("predict", prediction(by_identifier("lmsi-probe-none")))


@question("unknown-preset", "predict", "Which error reports a preset that does not exist?")
def predict_with_unknown_preset(context: ProbeContext) -> None:
    preset = {"fuzzyPresetIdentifier": "lmsi-probe no such preset"}
    with context.wire() as wire:
        wire.stream("predict", prediction(context.reference) | preset)


@question("overflow-stop-at-limit", "check-context-overflow", OVERFLOW.format("stopAtLimit"), policy="stopAtLimit")
@question(
    "overflow-truncate-middle", "check-context-overflow", OVERFLOW.format("truncateMiddle"), policy="truncateMiddle"
)
@question("overflow-rolling-window", "check-context-overflow", OVERFLOW.format("rollingWindow"), policy="rollingWindow")
def overflow(context: ProbeContext, policy: Literal["stopAtLimit", "truncateMiddle", "rollingWindow"]) -> None:
    config: LlmPredictionConfigDict = {"context_overflow_policy": policy, "temperature": 0.0}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": GREETING},
        {"role": "assistant", "content": LONG_TEXT},
        {"role": "user", "content": "Which number is your favorite?"},
    ]
    instance = context.load(SMALL)
    with suppress(LMStudioServerError):  # which may be the policy
        instance.respond({"messages": messages}, config={**config, "max_tokens": 4})
    instance.complete(PATTERN, config={**config, "max_tokens": OVERFLOWING, "repeat_penalty": False})


@question("overflow-by-one-message", "check-context-overflow", "What happens to a single message that does not fit?")
def overflow_by_one_message(context: ProbeContext) -> None:
    context.load(SMALL).respond(LONG_TEXT, config={"max_tokens": 4})


@question(
    "queue", "parallel-requests", "What state is reported while predictions are queued, and in which order do they run?"
)
@question(
    "unload-while-queued",
    "check-unload",
    "How do a running and a queued prediction end if their instance is unloaded?",
    unload=True,
)
def queue(context: ProbeContext, *, unload: bool = False) -> None:
    identifier = context.load(SMALL).identifier
    specifier = by_identifier(identifier)
    state = {"specifier": specifier, "throwIfNotFound": True}
    with context.wire() as wire:
        running = wire.open("predict", prediction(specifier, STORY, OVERFLOWING))
        wire.wait_for_text(running)
        queued = [wire.open("predict", prediction(specifier, prompt, 1)) for prompt in (GREETING, CITY)]
        wire.call("getInstanceProcessingState", state)
        if unload:  # on another connection, because the replies on this one are read later
            context.call("unloadModel", {"identifier": identifier})
        else:
            wire.cancel(running)
        wire.finish(running, *queued)
        wire.call("getInstanceProcessingState", state)


def respond(context: ProbeContext, prompt: str, **config: Unpack[LlmPredictionConfigDict]) -> None:
    context.main.respond(prompt, config={"max_tokens": 256, "temperature": 0.0, **config})


@question("structured-output", "structured-output", "Which packets does a response in a JSON schema have?")
def respond_in_format(context: ProbeContext) -> None:
    respond(context, CITY, structured=CITY_FORMAT)


@question("gbnf-grammar", "structured-output", "Does a GBNF grammar work?")
def respond_in_grammar(context: ProbeContext) -> None:
    respond(context, "Is water wet?", structured={"type": "gbnf", "gbnfGrammar": 'root ::= "yes" | "no"'})


@question("tool-call", "predict-packets", "Which packets does a tool call have, and why does the prediction stop?")
def respond_with_tool(context: ProbeContext) -> None:
    respond(context, WEATHER, raw_tools=TOOLS)


@question("tools-and-format", "structured-output", "Does a model call a tool if a JSON schema is requested, too?")
def respond_with_tool_in_format(context: ProbeContext) -> None:
    respond(context, WEATHER, raw_tools=TOOLS, structured=CITY_FORMAT)


@question("required-tool-call", "value-encodings", "Does a required tool call come if the prompt needs none?")
def require_tool_call(context: ProbeContext) -> None:
    respond(context, GREETING, raw_tools=TOOLS, tool_choice={"type": "generic", "mode": "required"})


@question("forced-tool-call", "client-versions", "Does the older setting `force` make the model call a tool?")
def force_tool_call(context: ProbeContext) -> None:
    respond(context, GREETING, raw_tools={**TOOLS, "force": True})


@question("log-probability-of-the-end", "fragments", "Is the token reported that ends a response?")
def report_last_token(context: ProbeContext) -> None:
    respond(context, GREETING, log_probs=1)


@question("stop-string", "prediction-stats", "What does a prediction report that ends at a stop string?")
def stop_at_string(context: ProbeContext) -> None:
    respond(context, COUNT, stop_strings=["\n", " "])


@question("log-probabilities", "fragments", "Which samplers filter the candidates before they are reported?")
def report_log_probabilities(context: ProbeContext) -> None:
    common: LlmPredictionConfigDict = {"log_probs": 5, "max_tokens": 1, "temperature": 1.0}
    off: LlmPredictionConfigDict = {"top_k_sampling": -1, "top_p_sampling": False, "min_p_sampling": False}
    samplers: Sequence[LlmPredictionConfigDict] = (
        {},
        {"top_k_sampling": 1},
        {"top_p_sampling": 0.01},
        {"min_p_sampling": 1.0},
        {"temperature": 0.0},
    )
    for sampler in samplers:
        context.main.respond(GREETING, config={**common, **off, **sampler})


@question("raw-completion", "complete-raw-text", "Does completeRawText work?")
def complete(context: ProbeContext) -> None:
    context.main.complete("One, two, three,", config={"max_tokens": 4})


@question("cached-tokens", "parallel-requests", "Are the prompts of two conversations in turn taken from the cache?")
def alternate_conversations(context: ProbeContext) -> None:
    rules = "\n".join(f"{number}. Name the pier and the time of ferry {number}." for number in range(1, 30))
    for prompt in ("When does it leave?", "And back?"):
        for place in ("the island", "the city"):
            system = f"You know the ferries to {place}.\n{rules}"
            messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
            context.main.respond({"messages": messages}, config={"max_tokens": 1})


@question("cancel-before-first-token", "check-cancel-points", "How does a prediction end that is canceled at once?")
@question(
    "cancel-between-tokens",
    "check-cancel-points",
    "How does a prediction end that is canceled while it generates?",
    after_first=True,
)
def cancel(context: ProbeContext, *, after_first: bool = False) -> None:
    with context.wire() as wire:
        running = wire.open("predict", prediction(context.reference, STORY, OVERFLOWING))
        if after_first:
            wire.wait_for_text(running)
        wire.cancel(running)
        wire.finish(running)


@question("unknown-key", "config-stacks", "What happens to a setting that does not exist?", fields=[{"lmsi.probe": 1}])
@question(
    "value-out-of-range",
    "prediction-keys",
    "What happens to values out of range?",
    fields=[{"llm.prediction.topPSampling": checked(2)}, {"llm.prediction.temperature": -1}],
    is_invalid=True,
)
@question(
    "checked-and-false",
    "off-values",
    "What does the Python SDK's form of a setting that is off do?",
    fields=[{"llm.prediction.repeatPenalty": checked(value=False)}],
    is_invalid=True,
)
def predict_with_settings(context: ProbeContext, fields: Sequence[Mapping[str, Any]]) -> None:
    with context.wire() as wire:
        for each in fields:
            wire.stream("predict", prediction(context.reference, fields=each))


@question("tokens", "tokenize", "Do the tokens of a text and their count agree?")
def count_tokens(context: ProbeContext) -> None:
    text = "The ferry leaves at noon, and the Fähre kommt um 12 Uhr."
    context.main.tokenize(text)
    context.main.count_tokens(text)


@question("prompt-template", "apply-prompt-template", "How are tools rendered into a prompt?")
def render_prompt(context: ProbeContext) -> None:
    context.main.apply_prompt_template(WEATHER, tools=[TOOL])
