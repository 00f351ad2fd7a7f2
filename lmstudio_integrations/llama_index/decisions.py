"""Decisions in LlamaIndex, over LM Studio's native protocol: `LMStudioSelector` and `LMStudioEvaluator`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.schema import QueryBundle
from llama_index.core.tools import ToolMetadata
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from lmstudio_integrations._adapters.request_model import AdapterNames
from lmstudio_integrations._adapters.settings_decision import DecisionSettings
from lmstudio_integrations._support.typeguards import is_mapping, is_number
from lmstudio_integrations.errors import (
    LMStudioPredictionError,
    LMStudioUnsupportedError,
    LMStudioValueError,
)
from lmstudio_integrations.types._numbers import Natural
from lmstudio_integrations.types._wire_model import explained
from lmstudio_integrations.types.decisions import (
    Answer,
    Calibration,
    Choice,
    ChoiceAnswer,
    Decision,
    Noul,
    NoulAnswer,
    is_answered,
    unanswered,
)


def _is_threshold(value: object) -> object:
    is_dumped = is_mapping(value) and set(value) == set(Calibration.__slots__)
    if isinstance(value, Calibration) or is_dumped or (is_number(value) and 0 <= value <= 1):
        return value
    raise PydanticCustomError("threshold", "must be a number from 0 to 1, or what calibrate returned")


Threshold = Annotated[float | Calibration, BeforeValidator(_is_threshold)]


class _Settings(DecisionSettings):
    """What both classes share."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @classmethod
    def _resolve_aliases(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Leave out the name of the class, which core dumps."""
        return super()._resolve_aliases({name: value for name, value in values.items() if name != "class_name"})

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts_dict: Any) -> None:
        """Ignore prompts of LlamaIndex: the question is in `instructions`."""


class LMStudioSelection(SingleSelection):
    """The choice that an `LMStudioSelector` selected. `calibrate` takes it as an answer, whose label is its index.

    Attributes:
        index: The index of the choice.
        reason: The probability of the choice, or why the default was selected.
        probabilities: The probability of each choice, by its index.
        spread: The most by which a probability differed between two orders of the choices; `None` with one order, as of
            decision models.
        unseen: The most that a probability may be wrong by; above 0.9 if the model would say something else.
    """

    probabilities: dict[int, float]
    spread: float | None = None
    unseen: float = 0.0

    type: ClassVar[str] = "choice"
    """What an answer has, so that `calibrate` and `Calibration.keeps` take a selection."""

    @property
    def choice(self) -> int:
        """The index of the most probable choice, which is not that of the default."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def probability(self) -> float:
        """The probability of the choice that was selected."""
        return self.probabilities[self.index]


class LMStudioSelector(_Settings, BaseSelector):
    """Select the one of several choices that a query is about, such as the query engine of a `RouterQueryEngine`.

    A language model is asked for the letter of a choice, one token for each order of the choices; a decision model is
    asked as it is. A selection has the `probability`, the `probabilities` of all choices, `spread` and `unseen`, and
    its reason says the probability. The object holds settings, described in `model_fields`, and opens no connection
    before its first call. The page `docs/llama-index/decisions.md` goes on to routers.

    Setup:
        Install the package with its extra: `pip install "lmstudio-integrations[llama-index]"`. Start LM Studio, or
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

    instructions: str = Field(
        default="Which of these answers the query?",
        description="The question about the choices. The default is `Which of these answers the query?`.",
    )

    threshold: Threshold | None = Field(
        default=None,
        description="The least probability of the choice, from 0 to 1, or what `calibrate` returned. With less, the "
        "`default` is selected, or the call fails. By default, the most probable choice is selected.",
    )

    default: Natural | None = Field(
        default=None,
        description="The index of the choice that is selected if no choice is probable enough, or if the model would "
        "rather say something else. If unset, the call fails then.",
    )

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        questions, labels = self._questions(choices)
        return self._selected(self._decide(query.query_str, questions), labels)

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        questions, labels = self._questions(choices)
        return self._selected(await self._adecide(query.query_str, questions), labels)

    def _questions(self, choices: Sequence[ToolMetadata]) -> tuple[Mapping[str, Any], list[str]]:
        """Return the question about some choices, and the labels of these, in their order."""
        if not choices:
            raise LMStudioValueError("a selector needs at least one choice")
        if self.default is not None and self.default >= len(choices):
            raise LMStudioValueError(f"default={self.default} is no index of {len(choices)} choices, which begin at 0")
        labels = [f"{number}. {each.name or ''}".strip(". ") for number, each in enumerate(choices, 1)]
        described = {label: each.description for label, each in zip(labels, choices, strict=True)}
        return {"choice": Choice(instructions=self.instructions, criteria=described)}, labels

    def _selected(self, decision: Decision, labels: Sequence[str]) -> SelectorResult:
        answer = decision.answers["choice"]
        assert isinstance(answer, ChoiceAnswer), "the answer fits the question"
        index, probability = labels.index(answer.choice), answer.probabilities[answer.choice]
        reason = f"probability {probability:.2f}"
        problem = _problem(decision.model, answer, self.threshold, probability)
        if problem is not None and self.default is None:
            error = LMStudioPredictionError if is_answered(answer) else LMStudioUnsupportedError
            raise error(f"{problem}, or set default")
        if problem is not None and self.default is not None:
            index, reason = self.default, f"the default: {problem}"
        selection = LMStudioSelection(
            index=index,
            reason=reason,
            probabilities={number: answer.probabilities[label] for number, label in enumerate(labels)},
            spread=answer.spread,
            unseen=answer.unseen,
        )
        return SelectorResult(selections=[selection])


def _problem(model: str, answer: Answer, threshold: float | Calibration | None, probability: float) -> str | None:
    """Return why an answer is not relied on, and what helps; `None` if it is."""
    if not is_answered(answer):
        return unanswered(model, answer)
    least = threshold.threshold if isinstance(threshold, Calibration) else threshold
    if least is None or probability >= least:
        return None
    return (
        f"{model!r} is not sure enough: its most probable answer has a probability of {probability:.2f}, and the "
        f"threshold is {least:.2f}; lower threshold, use a larger model"
    )


class LMStudioEvaluation(EvaluationResult):
    """What an `LMStudioEvaluator` found. `calibrate` takes it as an answer.

    Attributes:
        passing: Whether the response passes; `None` if the model is not sure enough, and there is no default.
        score: The probability of yes; `None` if the model would rather say something else.
        feedback: The probability of yes in words, or why the default applies, or why the result is invalid.
        invalid_result: Whether the model is not sure enough, and there is no default; `invalid_reason` says why.
        noul: The probability of yes, even where that means nothing.
        spread: `None`: yes and no have no order.
        unseen: The most that the probability may be wrong by; above 0.9 if the model would say something else.
    """

    noul: float
    spread: float | None = None
    unseen: float = 0.0

    type: ClassVar[str] = "noul"
    """What an answer has, so that `calibrate` and `Calibration.keeps` take an evaluation."""


class LMStudioEvaluator(_Settings, BaseEvaluator):
    """Judge a response with a question of yes or no: whether it is faithful to its context, or relevant to the query.

    The score of a result is the probability of yes, which is one token of a language model, or the answer of a decision
    model; `unseen` says how far to trust it. The object holds settings, described in `model_fields`, and opens no
    connection before its first call. The page `docs/llama-index/decisions.md` goes on to query engines.

    Setup:
        Install the package with its extra: `pip install "lmstudio-integrations[llama-index]"`. Start LM Studio, or
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

    instructions: str = Field(
        default="Does the context say everything that the response says?",
        description="The question about the query, the context and the response, as far as they are given. Yes is "
        "good. The default asks whether the response is faithful: `Does the context say everything that the response "
        "says?`. For relevance, write `Does the response answer the query?`.",
    )

    threshold: Threshold = Field(
        default=0.5,
        description="From which probability of yes on a response passes, from 0 to 1. Or what `calibrate` returned: a "
        "response passes if yes is more probable, and if the model is sure enough of its answer, whichever that is. "
        "The default is 0.5.",
    )

    default: bool | None = Field(
        default=None,
        description="Whether a response passes if the model is not sure enough, as the `Calibration` says, or if it "
        "would rather say something else. If unset, such a result is invalid.",
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
            LMStudioValueError: If none of them is given, or one is no text.
        """
        given = explained(EvaluationResult, query=query, response=response, contexts=contexts)
        return self._judged(given, self._decide(_state(given), self._questions))

    async def aevaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        **_others: Any,
    ) -> EvaluationResult:
        """Return whether a response passes, and its score; see `evaluate`."""
        given = explained(EvaluationResult, query=query, response=response, contexts=contexts)
        return self._judged(given, await self._adecide(_state(given), self._questions))

    @property
    def _questions(self) -> Mapping[str, Any]:
        return {"good": Noul(instructions=self.instructions)}

    def _judged(self, given: EvaluationResult, decision: Decision) -> EvaluationResult:
        answer = decision.answers["good"]
        assert isinstance(answer, NoulAnswer), "the answer fits the question"
        calibration = self.threshold if isinstance(self.threshold, Calibration) else None
        least = 0.5 if isinstance(self.threshold, Calibration) else self.threshold
        problem = _problem(decision.model, answer, calibration, max(answer.noul, 1 - answer.noul))
        is_invalid = problem is not None and self.default is None
        return LMStudioEvaluation(
            **given.model_dump(include={"query", "response", "contexts"}),
            passing=answer.noul >= least if problem is None else self.default,
            score=answer.noul if is_answered(answer) else None,
            feedback=_feedback(answer, problem, default=self.default),
            invalid_result=is_invalid,
            invalid_reason=problem if is_invalid else None,
            noul=answer.noul,
            spread=answer.spread,
            unseen=answer.unseen,
        )


def _feedback(answer: NoulAnswer, problem: str | None, *, default: bool | None) -> str:
    if problem is None:
        return f"the probability of yes is {answer.noul:.2f}"
    return problem if default is None else f"the default: {problem}"


def _state(given: EvaluationResult) -> dict[str, Any]:
    state = {"query": given.query, "context": list(given.contexts or ()), "response": given.response}
    if not any(state.values()):
        raise LMStudioValueError("an evaluator needs a query, a response or contexts")
    return {name: each for name, each in state.items() if each}
