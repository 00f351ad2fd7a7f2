"""What every prompt of this folder goes through: the model's chat template, without thoughts and foreign tokens."""

import re

from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.chat_templates import render
from lmstudio_integrations.client.predictions.prediction import PredictingModel
from lmstudio_integrations.errors import LMStudioPromptTemplateError
from lmstudio_integrations.protocol.kv_config import stack_of
from lmstudio_integrations.types.chat import WireHistory
from lmstudio_integrations.types.config import LlmPredictionConfig

_BRACKETED = r"<\|[^<>|]{1,60}\|>|<\uff5c[^<>\uff5c]{1,60}\uff5c>"

_MARKUP = re.compile(_BRACKETED + r"|</?[A-Za-z]\w{0,40}>|\[/?[A-Z_]{2,40}\]")
"""What special tokens look like in a template, where they are the only markup."""

_SPECIAL = re.compile(
    _BRACKETED
    + r"|</?(?:s|bos|eos|pad|unk|think|start_of_turn|end_of_turn)>"
    + r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|THINK)\]"
)
"""Special tokens of common families, in texts."""

_OPEN_THOUGHT = re.compile(r"<think>\s*\Z")
_WITHOUT_THOUGHTS = stack_of(LlmPredictionConfig(enable_thinking=False))


def neutral(text: str, markup: str) -> str:
    """Return a text without special tokens: each gets a space, with which it is a text like any other.

    With them, a text could end the document and answer in place of the model.

    Args:
        text: The text.
        markup: What the prompt has of its own, in which the special tokens of the model are.
    """
    tokens = {*_MARKUP.findall(markup), *_SPECIAL.findall(text)}
    # The longest first: one may be the beginning of another.
    for token in sorted(tokens, key=len, reverse=True):
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def without_open_thought(rendered: str) -> str:
    """Return a prompt whose template may begin the reasoning itself, which would stand before the first token."""
    return f"{rendered}\n</think>\n\n" if _OPEN_THOUGHT.search(rendered) else rendered


def in_chat_template(model: PredictingModel, question: str) -> Flow[str]:
    """Return a question in the chat template of a model, up to where it answers without a thought."""
    asked = WireHistory.of_prompt(question).to_dict()
    try:
        rendered = yield from model.on_instance(
            lambda operation, instance: render(
                operation, instance.specifier, asked, {"omitBosToken": True}, _WITHOUT_THOUGHTS
            )
        )
    except LMStudioPromptTemplateError:  # a model that only continues texts
        rendered = question
    return without_open_thought(rendered)
