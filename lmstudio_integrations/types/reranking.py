"""What a reranker takes and returns: the prompt that its model was trained for, and the score of each text."""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from lmstudio_integrations.errors import LMStudioError, LMStudioValueError

OnRerankError: TypeAlias = Literal["raise", "mark"]

_FIELD = r"\{(instruction|query|text)\}"


@dataclass(frozen=True, slots=True)
class RerankTemplate:
    """The prompt of a reranker: a language model that says in one word whether a text is relevant to a query.

    Attributes:
        prompt: The whole prompt, with the special tokens of the model, and with `{query}`, `{text}` and, if it has
            one, `{instruction}`. Other braces stay as they are. What stands before `{text}` is processed once for all
            texts.
        instruction: What relevant means, unless the call says it.
        yes: The word for a relevant text, as the model writes it at the end of the prompt: one token. Spaces around it
            and its case do not matter.
        no: The word for another one.

    Raises:
        LMStudioValueError: If `{query}` or `{text}` is missing, `{text}` is there twice, or the words are the same.
    """

    prompt: str
    instruction: str = "Given a web search query, retrieve relevant passages that answer the query"
    yes: str = "yes"
    no: str = "no"

    def __post_init__(self) -> None:
        names = re.findall(_FIELD, self.prompt)
        if "query" not in names or names.count("text") != 1:
            raise LMStudioValueError(f"the prompt needs {{query}}, and {{text}} once; got {self.prompt!r}")
        if normal_word(self.yes) == normal_word(self.no) or not (normal_word(self.yes) and normal_word(self.no)):
            raise LMStudioValueError(f"yes and no must be two words; got {self.yes!r} and {self.no!r}")

    def frame(self, query: str, instruction: str | None = None) -> tuple[str, str]:
        """Return what stands before and after a text."""
        values = {"query": query, "instruction": self.instruction if instruction is None else instruction}
        before, after = self.prompt.split("{text}")

        def filled(part: str) -> str:
            return re.sub(_FIELD, lambda found: values[found[1]], part)

        return filled(before), filled(after)

    @property
    def markup(self) -> str:
        """What the prompt has of its own, in which the special tokens of the model are."""
        return re.sub(_FIELD, " ", self.prompt)


def normal_word(word: str) -> str:
    """Return a word without the differences between its spellings."""
    return word.strip().casefold()


QWEN3_RERANKER = RerankTemplate(
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
    "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {text}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
"""What the Qwen3-Reranker models were trained for."""

QUESTION = """\
Judge whether a text is relevant to a query. Answer with one word, yes or no. {instruction}.

Query: {query}

Text: {text}

Relevant:"""
"""The question to a model that follows instructions; its own chat template surrounds it. What stands before the text is
processed once, what stands after it for each text."""


@dataclass(frozen=True, slots=True)
class RerankResult:
    """The score of a text.

    Attributes:
        index: The index of the text in the given ones.
        score: How relevant it is, from 0 to 1: the probability of yes, relative to those of yes and no together. `None`
            if the model would say neither, with a probability of more than 0.9, or the call failed.
        truncated: Whether only the beginning of the text was scored, because the model takes no more.
        cached_tokens: Tokens of the prompt that the server took from its cache; `None` if it did not report them.
        error: Why there is no score, if the call failed and `errors` is `mark`.
    """

    index: int
    score: float | None
    truncated: bool = False
    cached_tokens: int | None = None
    error: LMStudioError | None = None
