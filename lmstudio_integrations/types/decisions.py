"""Questions that a model answers with probabilities, and the answers; see `docs/protocol.md#decisions`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic_core import ErrorDetails

from lmstudio_integrations._support.suggestions import explain_unknown_name
from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_iterable, is_list, is_mapping, is_number, is_object
from lmstudio_integrations.errors import LMStudioUnsupportedError, LMStudioValueError
from lmstudio_integrations.types._wire_model import ExplainedModel

Content: TypeAlias = str | dict[str, Any] | list[Any]
"""Text, or JSON."""

FEWEST_LEVELS, MOST_LEVELS = 2, 10


class _Question(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    instructions: Content = Field(description="The whole question.")

    if not TYPE_CHECKING:  # pragma: no branch - type checkers know the fields

        def __init__(self, /, *given: Any, **members: Any) -> None:
            name = type(self).__name__
            if given:
                raise LMStudioValueError(
                    f"the members of a {name} have names; write {name}(instructions={shown(given[0])}"
                    f"{'' if name == 'Noul' else ', criteria=…'})"
                )
            try:
                super().__init__(**members)
            except ValidationError as error:
                problem = _explain(error, type(self))
            else:
                return
            raise LMStudioValueError(f"{name}: {problem}")

        # Pydantic builds nested values without this constructor; `_parse` explains their errors.
        __init__.__pydantic_base_init__ = True

    @field_validator("instructions", mode="before")
    @classmethod
    def _is_content(cls, instructions: Any) -> Any:
        if not (isinstance(instructions, str) or is_object(instructions) or is_list(instructions)):
            raise LMStudioValueError(f"instructions must be the question as text, or JSON; got {shown(instructions)}")
        return instructions


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

    @field_validator("criteria", mode="before")
    @classmethod
    def _has_labels(cls, criteria: object) -> object:
        if not is_mapping(criteria):
            labels = list(criteria) if is_iterable(criteria) and not isinstance(criteria, str) else ["a", "b"]
            remedy = shown({str(label): None for label in labels})
            raise LMStudioValueError(f"criteria must map each label to what it means, or None; write {remedy}")
        if not criteria:
            raise LMStudioValueError("criteria must be an object with at least one label")
        for label in criteria:
            if not isinstance(label, str):
                raise LMStudioValueError(f"a label must be a string; got {shown(label)}; write {shown(str(label))}")
            if not label.strip():
                raise LMStudioValueError(f"a label is empty: {shown(label)}; name what it stands for")
        return criteria


class Score(_Question):
    """A question about a level. The answer is the expected level, from 0 to the number of levels less 1."""

    type: Literal["score"] = "score"
    criteria: tuple[Any, ...] = Field(description="The levels, lowest first: two to ten descriptions.")

    @field_validator("criteria", mode="before")
    @classmethod
    def _has_levels(cls, criteria: Any) -> Any:
        levels: list[Any] = list(criteria) if type(criteria) in {list, tuple} else []
        if not FEWEST_LEVELS <= len(levels) <= MOST_LEVELS:
            raise LMStudioValueError(f"criteria must be an array of {FEWEST_LEVELS} to {MOST_LEVELS} levels")
        for number, level in enumerate(levels):
            if level in levels[:number]:
                raise LMStudioValueError(f"two levels are the same: {shown(level)}; describe how they differ")
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
    given = question.model_dump() if isinstance(question, BaseModel) else question
    if not is_mapping(given):
        text = f"a question must be a Noul, a Choice or a Score, or a dict; got {shown(question)}"
        asked = shown(question) if isinstance(question, str) else "…"
        raise LMStudioValueError(f"questions.{name}: {text}; write Noul(instructions={asked})")
    try:
        return _QUESTION.validate_python(given)
    except ValidationError as error:
        problem = _explain(error, _KINDS.get(str(given.get("type"))))
    raise LMStudioValueError(f"questions.{name}: {problem}")


_KINDS: Mapping[str, type[_Question]] = {"noul": Noul, "choice": Choice, "score": Score}


def _explain(error: ValidationError, kind: type[_Question] | None) -> str:
    """Return what is wrong with a question, in our words where pydantic's would not help."""
    return "; ".join(dict.fromkeys(_explain_member(each, kind) for each in error.errors(include_url=False)))


def _explain_member(problem: ErrorDetails, kind: type[_Question] | None) -> str:
    names = [str(part) for part in problem["loc"] if str(part) not in _KINDS]
    place, ours = ".".join(names), problem.get("ctx", {}).get("error")
    if ours is not None:
        return str(ours)
    match problem["type"]:
        case "union_tag_invalid" | "union_tag_not_found":
            given = problem["input"].get("type")
            return f"its type is {shown(given)}; known are {', '.join(_KINDS)}"
        case "missing":
            return f"{place} is missing"
        case "extra_forbidden" if kind is not None:
            fields = kind.model_fields if len(names) == 1 else NoulCriteria.model_fields
            return f"unknown member {place!r}; {explain_unknown_name(names[-1], fields)}"
        case _:
            return f"{place} must be {problem['msg'].removeprefix('Input should be ')}; got {shown(problem['input'])}"


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
            Near 1 if the model would say something else than an answer: with a probability of more than 0.9.
        spread: `None`: there are no options whose order could matter.
        type: `noul`.
    """

    noul: float
    unseen: float = 0.0
    spread: float | None = None
    type: Literal["noul"] = "noul"


@dataclass(frozen=True, slots=True)
class ChoiceAnswer:
    """The answer to a `Choice`.

    Attributes:
        choice: The label with the highest probability.
        probabilities: The probability of each label.
        confidence: The highest probability, or what a decision model says. It is no frequency of being right.
        unseen: As in `NoulAnswer`.
        spread: The most by which a probability differed between two orders of the options; `None` if they were asked in
            one order only, as those of decision models are.
        type: `choice`.
    """

    choice: str
    probabilities: Mapping[str, float]
    confidence: float
    unseen: float = 0.0
    spread: float | None = None
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
    spread: float | None = None
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
    spread: float | None = None
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


LEAST_SHARE = 0.1
"""The least probability that all answers to a question must have together. With less, the model would say something
else, and how they share it means nothing."""


def is_answered(answer: Any) -> bool:
    """Whether the answers to a question have at least `LEAST_SHARE` of the probability; the answer may be of core."""
    return 1 - getattr(answer, "unseen", 0.0) >= LEAST_SHARE - 1e-9


def check_answered(decision: Decision) -> Decision:
    """Return a decision, all of whose questions are answered.

    Raises:
        LMStudioUnsupportedError: If the model would rather say something else.
    """
    for name, answer in decision.answers.items():
        if not is_answered(answer):
            raise LMStudioUnsupportedError(f"{unanswered(decision.model, answer)}: the question {name!r} has no answer")
    return decision


def unanswered(model: str, answer: Answer) -> str:
    """Return why an answer says nothing."""
    return (
        f"{model!r} would say something else than an answer, to which it gives {1 - answer.unseen:.1%} of the "
        f"probability, and less than {LEAST_SHARE:.0%} means nothing; use a model that follows instructions"
    )


# Which answers to rely on ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Calibration:
    """How sure a model must be for its answer to be relied on, as `calibrate` found it.

    Attributes:
        threshold: The least probability of the answer; `math.inf` if no answer is to be relied on.
        kept: How many of the examples have at least this probability.
        errors: How many of these are wrong.
        expected_error_rate: The share of wrong answers to expect among those, `(errors + 1) / (kept + 2)`; at most the
            `error_rate` of `calibrate`, except with a threshold of `math.inf`.
    """

    threshold: float
    kept: int
    errors: int
    expected_error_rate: float

    def keeps(self, answer: Any) -> bool:
        """Whether the model is sure enough of an answer, which may be one of langchain-core.

        Raises:
            LMStudioValueError: If it is no answer.
        """
        return is_answered(answer) and _most_probable(answer, "the answer")[1] >= self.threshold


def calibrate(answers: Iterable[Any], right: Iterable[object], *, error_rate: float = 0.1) -> Calibration:
    """Return from which probability on answers to a question are relied on, by examples whose answers are known.

    It is the lowest threshold at which the expected share of wrong answers is within the limit. Few examples prove
    little, so that is `(errors + 1) / (kept + 2)`: eight answers without an error still mean one wrong of ten. Because
    the threshold is chosen on these examples, even that is a little too good. Answers whose `unseen` is above 0.9 are
    never kept, and do not count.

    Args:
        answers: What the model answered to one question about several states, also as answers of langchain-core, and as
            selections and evaluations of LlamaIndex.
        right: What is right for each: `True` or `False` for a `Noul`, a label for a `Choice`, a level as an `int` for a
            `Score`, an index for a selection.
        error_rate: The share of wrong answers that is acceptable among those that are kept, between 0 and 1.

    Raises:
        LMStudioValueError: If an argument is invalid; the message says what to write.
    """
    if not is_number(error_rate) or not 0 < error_rate < 1:
        raise LMStudioValueError(f"error_rate must be between 0 and 1, such as 0.1; got {shown(error_rate)}")
    for name, given in (("answers", answers), ("right", right)):
        if not is_iterable(given):
            raise LMStudioValueError(f"{name} must be a list; got {shown(given)}")
    listed, known = list(answers), list(right)
    if len(listed) != len(known):
        raise LMStudioValueError(
            f"each answer needs what is right; got {len(listed)} answers, and {len(known)} of them"
        )
    examples: list[tuple[float, bool]] = []
    for number, (answer, known_label) in enumerate(zip(listed, known, strict=True)):
        label = _without_numpy(known_label)
        value, probability = _most_probable(answer, f"answers[{number}]")
        if answer.type != listed[0].type:
            raise LMStudioValueError(
                f"answers must be of one question; answers[0] is of the type {listed[0].type!r}, and answers[{number}] "
                f"of {answer.type!r}"
            )
        _check_right(answer, label, number)
        if is_answered(answer):
            examples.append((probability, label == (int(value) if answer.type == "score" else value)))
    examples.sort()
    errors = sum(not is_right for _, is_right in examples)
    for number, (threshold, is_right) in enumerate(examples):
        kept, is_first = len(examples) - number, number == 0 or examples[number - 1][0] < threshold
        expected = (errors + 1) / (kept + 2)
        if is_first and expected <= error_rate:
            return Calibration(threshold, kept, errors, expected)
        errors -= not is_right
    return Calibration(math.inf, 0, 0, 0.5)


def _without_numpy(value: object) -> object:
    """Return a number or a boolean of numpy, such as a column of a table has, as Python's."""
    item = getattr(value, "item", None)
    return item() if type(value).__module__ == "numpy" and callable(item) else value


def _most_probable(answer: Any, name: str) -> tuple[Any, float]:
    """Return what an answer says, and how probable that is.

    Raises:
        LMStudioValueError: If it is no answer, or has no probability; `name` is what the error calls it.
    """
    match getattr(answer, "type", None):
        case "noul":
            value, probability = None, answer.noul
        case "choice":
            value, probability = answer.choice, answer.probabilities.get(answer.choice)
        case "score":
            value = max(answer.probabilities, key=answer.probabilities.get, default=None)
            probability = answer.probabilities.get(value)
        case _:
            raise LMStudioValueError(
                f"{name} must be an answer, such as decision.answers['urgent'], not its number; got {shown(answer)}"
            )
    if not is_number(_without_numpy(probability)):
        raise LMStudioValueError(
            f"{name} has no probability of what it says; pass answers as decide returned them; got {shown(answer)}"
        )
    if answer.type == "noul":
        return probability >= 0.5, max(probability, 1 - probability)
    return value, probability


def _check_right(answer: Any, right: object, number: int) -> None:
    """Check that what is right for an answer could be one.

    Raises:
        LMStudioValueError: If it could not; the message says what to write.
    """
    match answer.type:
        case "noul":
            is_known, expected = isinstance(right, bool), "True or False, whether yes is right"
        case "score":
            levels = [int(level) for level in answer.probabilities]
            is_known = type(right) is int and right in levels
            expected = f"the right level, from {min(levels)} to {max(levels)}"
        case _:
            kind = str if isinstance(answer.choice, str) else int  # the choices of a selection are their indices
            is_known = isinstance(right, kind) and not isinstance(right, bool) and right in answer.probabilities
            expected = f"the right one of {', '.join(map(shown, answer.probabilities))}"
    if not is_known:
        raise LMStudioValueError(f"right[{number}] must be {expected}; got {shown(right)}")
