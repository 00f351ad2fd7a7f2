"""The query and the text in the prompt of a reranker, in the two forms that this package's client sends. Pure.

A rule for a reranker applies by the text alone: the query and the instruction, which are the same for all texts, would
match for each of them. `rules` describes requests with it.
"""

import re
from typing import NamedTuple

from lmstudio_integrations.types.reranking import QUESTION, QWEN3_RERANKER

_FORMS = [re.split(r"\{\w+\}", prompt)[1:] for prompt in (QWEN3_RERANKER.prompt, QUESTION)]
"""What stands before the query, before the text, and after it, in each form."""


class RerankPrompt(NamedTuple):
    """What a reranker compares."""

    query: str
    text: str


def rerank_prompt(prompt: str) -> RerankPrompt | None:
    """Return what the prompt of a reranker compares; `None` for another prompt."""
    for before_query, before_text, after_text in _FORMS:
        _, _, rest = prompt.partition(before_query)
        query, _, rest = rest.partition(before_text)
        text, is_found, _ = rest.rpartition(after_text)
        if is_found:
            return RerankPrompt(query, text)
    return None
