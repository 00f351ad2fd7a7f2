"""The prompts of rerankers: which template a model takes, and texts that cannot leave their place in it. Pure."""

import re

from lmstudio_integrations.client.support.arguments import text_of
from lmstudio_integrations.errors import LMStudioUnsupportedError, LMStudioValueError
from lmstudio_integrations.types.reranking import QWEN3_RERANKER, RerankTemplate

WHICH_CAN = (
    "rerankers that are language models can, such as Qwen3-Reranker, and models that follow instructions in general"
)

FAMILIES: tuple[tuple[re.Pattern[str], RerankTemplate], ...] = (
    (re.compile(r"qwen-?3(-vl)?-reranker", re.IGNORECASE), QWEN3_RERANKER),
)
"""The templates of models that were trained as rerankers, by their keys."""

_CROSS_ENCODERS = re.compile(
    r"bge-reranker(?!.*(gemma|minicpm))|jina-reranker|ms-marco|gte-[\w-]*reranker|mxbai-rerank-\w+-v1|cross-encoder",
    re.IGNORECASE,
)
"""Keys of rerankers that have a score as their only output, and no words."""

INSTRUCTION = "A text is relevant if it helps to answer the query"

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


def family_of(*names: str | None) -> RerankTemplate | None:
    """Return the template of a model that was trained as a reranker; `None` for others.

    Raises:
        LMStudioUnsupportedError: If it is one that cannot say a word.
    """
    for name in filter(None, names):
        for pattern, template in FAMILIES:
            if pattern.search(name):
                return template
        if _CROSS_ENCODERS.search(name):
            raise LMStudioUnsupportedError(
                f"{name!r} is a cross-encoder, which LM Studio cannot run as a reranker; {WHICH_CAN}"
            )
    return None


def template_of(template: object) -> RerankTemplate:
    """Return a template that was given, maybe as its prompt alone.

    Raises:
        LMStudioValueError: If it is neither, or invalid.
    """
    if isinstance(template, RerankTemplate):
        return template
    if not isinstance(template, str):
        raise LMStudioValueError(f"template must be a RerankTemplate or a prompt; got {template!r}")
    return RerankTemplate(text_of(template, "template"))


def from_chat_template(rendered: str) -> RerankTemplate:
    """Return the template of a model that follows instructions, from its chat template around `QUESTION`."""
    # A template may begin the reasoning itself, which would stand before the word.
    prompt = f"{rendered}\n</think>\n\n" if _OPEN_THOUGHT.search(rendered) else rendered
    return RerankTemplate(prompt, INSTRUCTION)


def neutral(text: str, template: RerankTemplate) -> str:
    """Return a text without special tokens: each gets a space, with which it is a text like any other.

    With them, a text could end the document and answer in place of the model.
    """
    tokens = {*_MARKUP.findall(template.markup), *_SPECIAL.findall(text)}
    # The longest first: one may be the beginning of another.
    for token in sorted(tokens, key=len, reverse=True):
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
