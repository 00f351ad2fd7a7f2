"""Decisions in LlamaIndex, over LM Studio's native protocol: `LMStudioSelector` and `LMStudioEvaluator`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.schema import QueryBundle
from llama_index.core.tools import ToolMetadata
from pydantic import ConfigDict, Field

from lmstudio_integrations._adapters.auxiliary_model_settings import DecisionSettings
from lmstudio_integrations._adapters.field_types import DECLARED, ModelName, Secret
from lmstudio_integrations._adapters.runtime import AdapterNames
from lmstudio_integrations.client.support.tracebacks import short_traceback
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.llama_index._settings import with_silence_timeouts
from lmstudio_integrations.types.decisions import Choice, ChoiceAnswer, Decision, Noul, NoulAnswer


class _Settings(DecisionSettings):
    """What both classes share."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @classmethod
    def _resolve_aliases(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Accept the names of our fields in other integrations."""
        return super()._resolve_aliases(with_silence_timeouts(values))

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts_dict: Any) -> None:
        """Ignore prompts of LlamaIndex: the question is in `instructions`."""


class LMStudioSelector(_Settings, BaseSelector):
    """Select the one of several choices that a query is about, such as the query engine of a `RouterQueryEngine`.

    A language model is asked for the letter of a choice, one token for each order of the choices; a decision model is
    asked as it is. The reason of a selection is how probable it is. The object holds settings and opens no connection
    before its first call. The page `docs/llama-index/decisions.md` goes on to routers.

    Setup:
        Install the extra `llama-index`, from a clone or a wheel: `pip install "PATH[llama-index]"`. Start LM Studio, or
        `lmsi serve`. `LMSTUDIO_HOST` and `LM_API_TOKEN` select another server.

    Example:
        ```python
        from lmstudio_integrations.llama_index import LMStudioSelector

        selector = LMStudioSelector(model="qwen/qwen3-4b")
        choices = ["timetables of the ferry", "menu of the restaurant"]
        print(selector.select(choices, "When does the last boat leave?").ind)
        ```
    """

    _adapters: ClassVar[AdapterNames] = (("llm", "LMStudioSelector"), ("decision", "LMStudioSelector"))

    if TYPE_CHECKING:
        api_token: Secret = DECLARED  # repeated: see `TypedDescriptor`
        model_name: ModelName = DECLARED

    instructions: str = Field(
        default="Which of these answers the query?",
        description="The question about the choices. The default is `Which of these answers the query?`.",
    )

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        with short_traceback():
            return _selected(self._decide(query.query_str, self._questions(choices)))

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        with short_traceback():
            return _selected(await self._adecide(query.query_str, self._questions(choices)))

    def _questions(self, choices: Sequence[ToolMetadata]) -> Mapping[str, Any]:
        if not choices:
            raise LMStudioValueError("a selector needs at least one choice")
        labels = [f"{number}. {each.name or ''}".strip(". ") for number, each in enumerate(choices, 1)]
        described = {label: each.description for label, each in zip(labels, choices, strict=True)}
        return {"choice": Choice(instructions=self.instructions, criteria=described)}


def _selected(decision: Decision) -> SelectorResult:
    answer = decision.answers["choice"]
    assert isinstance(answer, ChoiceAnswer), "it was asked"
    index = list(answer.probabilities).index(answer.choice)
    return SelectorResult(selections=[SingleSelection(index=index, reason=f"probability {answer.confidence:.2f}")])


class LMStudioEvaluator(_Settings, BaseEvaluator):
    """Judge a response with a question of yes or no: whether it is faithful to its context, or relevant to the query.

    The score of a result is the probability of yes, which is one token of a language model, or the answer of a decision
    model. The object holds settings and opens no connection before its first call. The page
    `docs/llama-index/decisions.md` goes on to query engines.

    Setup:
        Install the extra `llama-index`, from a clone or a wheel: `pip install "PATH[llama-index]"`. Start LM Studio, or
        `lmsi serve`. `LMSTUDIO_HOST` and `LM_API_TOKEN` select another server.

    Example:
        ```python
        from lmstudio_integrations.llama_index import LMStudioEvaluator

        evaluator = LMStudioEvaluator(model="qwen/qwen3-4b")
        contexts = ["The ferry leaves at noon."]
        print(evaluator.evaluate(response="It leaves at noon.", contexts=contexts).score)
        ```
    """

    _adapters: ClassVar[AdapterNames] = (("llm", "LMStudioEvaluator"), ("decision", "LMStudioEvaluator"))

    if TYPE_CHECKING:
        api_token: Secret = DECLARED  # repeated: see `TypedDescriptor`
        model_name: ModelName = DECLARED

    instructions: str = Field(
        default="Does the context say everything that the response says?",
        description="The question about the query, the context and the response, as far as they are given. Yes is "
        "good. The default asks whether the response is faithful: `Does the context say everything that the response "
        "says?`. For relevance, write `Does the response answer the query?`.",
    )

    threshold: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="From which probability of yes on a response passes. The default is 0.5.",
    )

    def evaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        **_others: Any,
    ) -> EvaluationResult:
        """Return whether a response passes, and its score.

        Args:
            query: The query.
            response: The response.
            contexts: What the response was made of.

        Raises:
            LMStudioValueError: If none of them is given.
        """
        with short_traceback():
            given = EvaluationResult(query=query, response=response, contexts=contexts)
            return self._judged(given, self._decide(_state(given), self._questions))

    async def aevaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        **_others: Any,
    ) -> EvaluationResult:
        """Return whether a response passes, and its score; see `evaluate`."""
        with short_traceback():
            given = EvaluationResult(query=query, response=response, contexts=contexts)
            return self._judged(given, await self._adecide(_state(given), self._questions))

    @property
    def _questions(self) -> Mapping[str, Any]:
        return {"good": Noul(instructions=self.instructions)}

    def _judged(self, given: EvaluationResult, decision: Decision) -> EvaluationResult:
        answer = decision.answers["good"]
        assert isinstance(answer, NoulAnswer), "it was asked"
        return given.model_copy(update={"passing": answer.noul >= self.threshold, "score": answer.noul})


def _state(given: EvaluationResult) -> dict[str, Any]:
    state = {"query": given.query, "context": list(given.contexts or ()), "response": given.response}
    if not any(state.values()):
        raise LMStudioValueError("an evaluator needs a query, a response or contexts")
    return {name: each for name, each in state.items() if each}
