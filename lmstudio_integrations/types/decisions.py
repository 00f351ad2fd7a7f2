"""Questions that a model answers with probabilities, and the answers; see `docs/protocol.md#decisions`."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.errors import LMStudioValueError

Content: TypeAlias = str | dict[str, Any] | list[Any]
"""Text, or JSON."""

FEWEST_LEVELS, MOST_LEVELS = 2, 10


class _Question(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    instructions: Content = Field(description="The whole question.")


class NoulCriteria(BaseModel):
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
