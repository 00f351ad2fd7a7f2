"""Questions that a model answers with probabilities, and the answers; see `docs/protocol.md#decisions`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._explained import ExplainedModel

Content: TypeAlias = str | dict[str, Any] | list[Any]
"""Text, or JSON."""

FEWEST_LEVELS, MOST_LEVELS = 2, 10


class _Question(ExplainedModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    instructions: Content = Field(description="The whole question.")


class NoulCriteria(ExplainedModel):
    """What counts as yes and as no; any JSON."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    true: Any = Field(default=None, description="What counts as yes.")
    false: Any = Field(default=None, description="What counts as no.")


class Noul(_Question):
    """A question of yes or no. The answer is the probability of yes."""

    type: Literal["noul"] = "noul"
    criteria: NoulCriteria | None = Field(default=None, description="What counts as yes and as no.")


class Choice(_Question):
    """A question with several answers, of which one is right."""

    type: Literal["choice"] = "choice"
    criteria: dict[str, Any] = Field(description="The answers by their labels, each with a description or `None`.")

    @field_validator("criteria")
    @classmethod
    def _has_labels(cls, criteria: dict[str, Any]) -> dict[str, Any]:
        if not criteria:
            raise LMStudioValueError("criteria must be an object with at least one label")
        return criteria


class Score(_Question):
    """A question about a level. The answer is the expected level, from 0 to the number of levels less 1."""

    type: Literal["score"] = "score"
    criteria: tuple[Any, ...] = Field(description="The levels, lowest first: two to ten descriptions.")

    @field_validator("criteria")
    @classmethod
    def _has_levels(cls, criteria: tuple[Any, ...]) -> tuple[Any, ...]:
        if not FEWEST_LEVELS <= len(criteria) <= MOST_LEVELS:
            raise LMStudioValueError(f"criteria must be an array of {FEWEST_LEVELS} to {MOST_LEVELS} levels")
        return criteria


Question = Noul | Choice | Score

_QUESTION: TypeAdapter[Question] = TypeAdapter(Annotated[Question, Field(discriminator="type")])


def parse_questions(questions: object) -> dict[str, Question]:
    """Return questions by their ids.

    Raises:
        LMStudioValueError: If there are none, or one is invalid; the message names it.
    """
    if not is_mapping(questions) or not questions:
        raise LMStudioValueError("questions must be an object with at least one question by its id")
    return {str(name): _parse(str(name), question) for name, question in questions.items()}


def _parse(name: str, question: object) -> Question:
    try:
        return _QUESTION.validate_python(question)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"][1:]))
        ours = problem.get("ctx", {}).get("error")
        text = f"{place}: {problem['msg']}" if ours is None else str(ours)
        raise LMStudioValueError(f"questions.{name}: {text.removeprefix(': ')}") from error


def options_of(question: Question) -> Mapping[str, Any]:
    """Return what an answer gives a probability, each with its description, if there is one."""
    if isinstance(question, Noul):
        return dict(question.criteria or NoulCriteria())
    if isinstance(question, Choice):
        return question.criteria
    return {str(level): description for level, description in enumerate(question.criteria)}


@dataclass(frozen=True, slots=True)
class NoulAnswer:
    """The answer to a `Noul`.

    Attributes:
        noul: The probability of yes.
        unseen: The most that it may be wrong by, because the server did not report what else the model would have said.
        type: `noul`.
    """

    noul: float
    unseen: float = 0.0
    type: Literal["noul"] = "noul"


@dataclass(frozen=True, slots=True)
class ChoiceAnswer:
    """The answer to a `Choice`.

    Attributes:
        choice: The label with the highest probability.
        probabilities: The probability of each label.
        confidence: The highest probability, or what a decision model says. It is no frequency of being right.
        unseen: As in `NoulAnswer`.
        spread: The most by which a probability differed between two orders of the options.
        type: `choice`.
    """

    choice: str
    probabilities: Mapping[str, float]
    confidence: float
    unseen: float = 0.0
    spread: float = 0.0
    type: Literal["choice"] = "choice"


@dataclass(frozen=True, slots=True)
class ScoreAnswer:
    """The answer to a `Score`.

    Attributes:
        score: The expected level, from 0 to the number of levels less 1.
        legend: The description of each level.
        probabilities: The probability of each level.
        confidence: As in `ChoiceAnswer`.
        unseen: As in `NoulAnswer`.
        spread: As in `ChoiceAnswer`.
        type: `score`.
    """

    score: float
    legend: Mapping[str, Any]
    probabilities: Mapping[str, float]
    confidence: float
    unseen: float = 0.0
    spread: float = 0.0
    type: Literal["score"] = "score"


Answer = NoulAnswer | ChoiceAnswer | ScoreAnswer


@dataclass(frozen=True, slots=True)
class Decision:
    """The answers to the questions about a state.

    Attributes:
        model: The key of the model.
        answers: The answers by the ids of the questions.
        input_tokens: Tokens of all prompts; those of the state count once for each question.
        output_tokens: Tokens that were generated.
    """

    model: str
    answers: Mapping[str, Answer]
    input_tokens: int = 0
    output_tokens: int = 0


class Measured(NamedTuple):
    """What was measured for one question: the probabilities of its options in their order, and how sure they are."""

    probabilities: Sequence[float]
    spread: float = 0.0
    unseen: float = 0.0


def answer_of(question: Question, measured: Measured) -> Answer:
    """Return the answer to a question."""
    options = options_of(question)
    probabilities = dict(zip(options, measured.probabilities, strict=True))
    sure: Any = {"unseen": measured.unseen, "spread": measured.spread, "confidence": max(probabilities.values())}
    if isinstance(question, Noul):
        return NoulAnswer(probabilities["true"], measured.unseen)
    if isinstance(question, Choice):
        return ChoiceAnswer(max(probabilities, key=probabilities.__getitem__), probabilities, **sure)
    score = sum(level * probability for level, probability in enumerate(measured.probabilities))
    return ScoreAnswer(score, options, probabilities, **sure)


# Which answers to rely on ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Calibration:
    """How sure a model must be for its answer to be relied on, as `calibrate` found it.

    Attributes:
        threshold: The least probability of the answer; `math.inf` if no answer is to be relied on.
        kept: How many of the examples have at least this probability.
        errors: How many of these are wrong.
        error_rate: The share of wrong answers to expect among those, `(errors + 1) / (kept + 2)`.
    """

    threshold: float
    kept: int
    errors: int
    error_rate: float

    def keeps(self, answer: Any) -> bool:
        """Whether the model is sure enough of an answer, which may be one of langchain-core."""
        return _most_probable(answer)[1] >= self.threshold


def calibrate(answers: Iterable[Any], right: Iterable[object], *, error_rate: float = 0.1) -> Calibration:
    """Return from which probability on answers to a question are relied on, by examples whose answers are known.

    It is the lowest threshold at which the expected share of wrong answers is within the limit. Few examples prove
    little, so that is `(errors + 1) / (kept + 2)`: eight answers without an error still mean one wrong of ten. Because
    the threshold is chosen on these examples, even that is a little too good.

    Args:
        answers: What the model answered, also as answers of langchain-core.
        right: What is right: a boolean for a `Noul`, a label for a `Choice`, a level for a `Score`.
        error_rate: The share of wrong answers that is acceptable among those that are kept, between 0 and 1.

    Raises:
        LMStudioValueError: If an argument is invalid.
    """
    if not 0 < error_rate < 1:
        raise LMStudioValueError(f"error_rate must be between 0 and 1, such as 0.1; got {error_rate!r}")
    try:
        judged = sorted(
            (probability, str(value) == str(known))
            for (value, probability), known in zip(map(_most_probable, answers), right, strict=True)
        )
    except ValueError as error:
        raise LMStudioValueError(f"each answer needs what is right: {error}") from error
    errors = sum(not is_right for _, is_right in judged)
    for number, (threshold, is_right) in enumerate(judged):
        kept, is_first = len(judged) - number, number == 0 or judged[number - 1][0] < threshold
        expected = (errors + 1) / (kept + 2)
        if is_first and expected <= error_rate:
            return Calibration(threshold, kept, errors, expected)
        errors -= not is_right
    return Calibration(math.inf, 0, 0, 0.5)


def _most_probable(answer: Any) -> tuple[object, float]:
    """Return what an answer says, and how probable that is."""
    if answer.type == "noul":
        return answer.noul >= 0.5, max(answer.noul, 1 - answer.noul)
    value = answer.choice if answer.type == "choice" else max(answer.probabilities, key=answer.probabilities.get)
    return value, answer.probabilities[value]
