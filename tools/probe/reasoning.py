"""Questions of the probe about reasoning: what becomes of it in the history, in fragments, and beside a format."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from lmstudio_integrations.protocol.kv_config import custom_fields_of
from tools.probe.context import ProbeContext
from tools.probe.predicting import CITY, CITY_FORMAT, PATTERN, respond
from tools.probe.question import Question, register
from tools.probe.wire import GREETING, config_stack, prediction

QUESTIONS: list[Question] = []
question = partial(register, QUESTIONS)

THINK = "Think about the ferry, then say hello."

THOUGHT = "which pier"
"""Reasoning in the history, which nothing else contains."""

CONSTANT = PATTERN * 5
"""A template that shows nothing of a conversation, and at least `CONSTANT_TOKENS` tokens, more than a greeting has."""

CONSTANT_TOKENS = 200

_MEMBERS = (
    "{% for message in messages %}[{{ message.role }}: {{ message.content }} "
    "{{ message.reasoning_content or message.thinking or 'without reasoning' }}]{% endfor %}"
)
"""A template that shows where the reasoning of a message is."""


def _template_of_request(template: str) -> dict[str, Any]:
    jinja: dict[str, Any] = {"type": "jinja", "stopStrings": [], "jinjaPromptTemplate": {"template": template}}
    return {"llm.prediction.promptTemplate": jinja}


def _render(context: ProbeContext, fields: Mapping[str, Any]) -> None:
    """Render a conversation with reasoning in the text of the assistant."""
    turns = (
        ("user", "Where does it land?"),
        ("assistant", f"<think>\n{THOUGHT}\n</think>\n\nAt pier 7."),
        ("user", GREETING),
    )
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    parameter = {
        "specifier": context.reference,
        "history": {"messages": messages},
        "predictionConfigStack": config_stack(fields),
        "opts": {},
    }
    context.call("applyPromptTemplate", parameter)


@question("earlier-reasoning", "earlier-reasoning", "Does a chat template get earlier reasoning as it was sent?")
def render_earlier_reasoning(context: ProbeContext) -> None:
    context.main.get_reasoning_replay()
    _render(context, _template_of_request(_MEMBERS))


@question("template-of-a-request", "earlier-reasoning", "May a request bring a prompt template of its own?")
def use_template_of_request(context: ProbeContext) -> None:
    template = _template_of_request(CONSTANT)
    _render(context, template)
    with context.wire() as wire:
        wire.stream("predict", prediction(context.reference, fields=template))


@question("custom-fields-of-reasoning", "custom-fields", "Does a custom field of the model keep earlier reasoning?")
def render_with_custom_fields(context: ProbeContext) -> None:
    prefix = custom_fields_of(context.model_key)
    custom = ({f"{prefix}.preserveThinking": True}, {f"{prefix}.clearThinking": False}) if prefix else ()
    for fields in ({}, *custom):
        _render(context, fields)


@question("reasoning-tags", "fragments", "Do tags of reasoning come in fragments of their own, with white space?")
def reason(context: ProbeContext) -> None:
    # The grammar makes any model write reasoning between tags, with white space.
    grammar = {"type": "gbnf", "gbnfGrammar": r'root ::= "<think>\nA ferry.\n</think>\n\nHello."'}
    respond(context, THINK)
    parsing: Any = {"enabled": True, "startString": "<think>", "endString": "</think>"}
    respond(context, THINK, structured=grammar, reasoning_parsing=parsing)


@question("reasoning-and-format", "structured-output", "Does a JSON schema apply to the reasoning, too?")
def reason_in_format(context: ProbeContext) -> None:
    respond(context, CITY, structured=CITY_FORMAT, enable_thinking=True)
