"""`rerank`: the prompt of each text, and its score by the first word of the response."""

import re
from collections.abc import Callable, Iterable
from typing import Any, TypedDict, cast

from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.embeddings import SPECIAL_TOKENS, EmbeddingRequest, fit_texts, utf8_length
from lmstudio_integrations.client.models.state import ContextWindow
from lmstudio_integrations.client.predictions.decisions.first_token import FirstTokens, ask_all
from lmstudio_integrations.client.predictions.decisions.prompts import in_chat_template, neutral
from lmstudio_integrations.client.predictions.prediction import PredictingModel
from lmstudio_integrations.client.support.arguments import check_names, list_of, text_of, whole_number
from lmstudio_integrations.errors import (
    LMStudioContextOverflowError,
    LMStudioError,
    LMStudioUnsupportedError,
    LMStudioValueError,
    LMStudioWrongModelKindError,
)
from lmstudio_integrations.protocol.errors import details_of
from lmstudio_integrations.types.models import ModelInstanceInfo
from lmstudio_integrations.types.reranking import (
    QUESTION,
    QWEN3_RERANKER,
    OnRerankError,
    RerankResult,
    RerankTemplate,
)

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


class RerankParameters(TypedDict, total=False):
    """The keyword arguments of `rerank`.

    Attributes:
        instruction: What relevant means, as a sentence: `Given a question, find the rule that answers it`. By default,
            that of the template.
        top_n: How many results to return, the best ones. By default all.
        max_concurrency: How many texts are scored at once. By default as many as the instances run.
        template: The prompt, as a `RerankTemplate` or as its `prompt` alone, for rerankers of other families than
            Qwen3-Reranker. Models without a family are asked through their chat template.
        errors: Whether a text that fails raises, or is marked: it then has no score, and its `error`. The default is
            `raise`.
        on_progress: Called with the share of the texts that are done, from 0.0 to 1.0. It must not be async.
    """

    instruction: str | None
    top_n: int | None
    max_concurrency: int | None
    template: RerankTemplate | str | None
    errors: OnRerankError
    on_progress: Callable[[float], Any] | None


class Reranking:
    """One call of `rerank`.

    Args:
        model: The model.
        query: The query.
        texts: The texts.
        parameters: The keyword arguments.

    Raises:
        LMStudioValueError: If an argument is invalid.
    """

    def __init__(self, model: PredictingModel, query: str, texts: Iterable[str], parameters: RerankParameters) -> None:
        check_names(parameters, RerankParameters.__annotations__)
        self._model = model
        self._query = text_of(query, "query")
        self._texts = list_of(texts, "texts", of_texts=True)
        for index, text in enumerate(self._texts):
            if not isinstance(text, str):
                raise LMStudioValueError(f"text {index} must be a string; got {text!r}")
        instruction, template = parameters.get("instruction"), parameters.get("template")
        self._instruction = None if instruction is None else text_of(instruction, "instruction")
        self._template = None if template is None else template_of(template)
        self._top_n = whole_number(parameters.get("top_n"), "top_n")
        self._at_once = whole_number(parameters.get("max_concurrency"), "max_concurrency")
        self._errors = parameters.get("errors", "raise")
        if self._errors not in {"raise", "mark"}:
            raise LMStudioValueError(f"errors must be 'raise' or 'mark'; got {self._errors!r}")
        self._on_progress = parameters.get("on_progress")
        self._results: list[RerankResult] = []

    def run(self) -> Flow[list[RerankResult]]:
        """Return the results, best first."""
        if not self._texts:
            return []
        template = self._template or family_of(self._model.state.key)
        info = yield from self._info()
        template = template or family_of(info.model_key, info.path)
        if template is None:  # a model that follows instructions
            template = RerankTemplate((yield from in_chat_template(self._model, QUESTION)), INSTRUCTION)
        prompts = yield from self._prompts(template, info)
        tokens = FirstTokens()

        def score(model: PredictingModel, number: int) -> Flow[None]:
            prompt, truncated = prompts[number]
            self._add((yield from self._result(tokens, model, number, prompt, template, truncated=truncated)))

        yield from ask_all(self._model, len(prompts), self._at_once, score)
        return sorted(self._results, key=_rank)[: self._top_n]

    def _info(self) -> Flow[ModelInstanceInfo]:
        try:
            return (yield from self._model.get_info(load=True))
        except LMStudioWrongModelKindError as error:
            problem = f"{self._model.state.name!r} is no language model, so it cannot rerank"
            raise LMStudioWrongModelKindError(f"{problem}; {WHICH_CAN}", **details_of(error)) from error

    def _prompts(self, template: RerankTemplate, info: ModelInstanceInfo) -> Flow[list[tuple[str, bool]]]:
        """Return the prompt of each text, and whether it has only the beginning of the text."""
        query = neutral(self._query, template.markup)
        instruction = None if self._instruction is None else neutral(self._instruction, template.markup).rstrip(".")
        before, after = template.frame(query, instruction)
        texts = [neutral(text, template.markup) for text in self._texts]
        window = ContextWindow(info.context_length, info.max_context_length)
        taken = utf8_length(before) + utf8_length(after) + 1
        if taken + max(map(utf8_length, texts)) > window.length - SPECIAL_TOKENS:
            taken = (yield from self._count([before]))[0] + (yield from self._count([after]))[0] + 1
        if taken + SPECIAL_TOKENS >= window.length:
            is_longest = window.maximum is not None and window.maximum <= max(window.length, taken + SPECIAL_TOKENS)
            raise LMStudioContextOverflowError(
                f"the query and the instruction leave no room for a text: with the prompt they take {taken} of "
                f"{window.length} tokens; shorten them"
                f"{'' if is_longest else ', or load the model with a larger context_length'}",
                used=taken,
                limit=window.length,
            )
        request = EmbeddingRequest(texts, "truncate", "")
        parts = yield from fit_texts(request, self._count, window._replace(length=window.length - taken))
        prompts: list[tuple[str, bool]] = []
        for text, part in zip(texts, parts, strict=True):
            is_cut = part.text != text
            # Every tokenizer has a border after a word.
            scored = part.text.rpartition(" ")[0] or part.text if is_cut else text
            prompts.append((before + scored + after, is_cut))
        return prompts

    def _count(self, texts: list[str]) -> Flow[list[int]]:
        return cast("list[int]", (yield from self._model.count_tokens(texts)))

    def _result(
        self,
        tokens: FirstTokens,
        model: PredictingModel,
        index: int,
        prompt: str,
        template: RerankTemplate,
        *,
        truncated: bool,
    ) -> Flow[RerankResult]:
        try:
            probabilities, result = yield from tokens.ask(model, prompt, (template.yes, template.no))
        except LMStudioError as error:
            if self._errors == "raise" or isinstance(error, LMStudioUnsupportedError):
                raise
            return RerankResult(index, None, truncated, error=error)
        shares = probabilities.shares if probabilities.are_meant else None
        return RerankResult(index, None if shares is None else shares[0], truncated, result.cached_tokens)

    def _add(self, result: RerankResult) -> None:
        self._results.append(result)
        if self._on_progress is not None:
            self._on_progress(len(self._results) / len(self._texts))


def _rank(result: RerankResult) -> tuple[bool, float, int]:
    """Return the key that puts the best text first, one without a score last, and equal ones in their order."""
    return result.score is None, -(result.score or 0.0), result.index
