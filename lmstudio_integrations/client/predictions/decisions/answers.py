"""The answers in the response of a decision server, checked against the questions that were asked."""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_number, is_object
from lmstudio_integrations.errors import LMStudioProtocolError
from lmstudio_integrations.types.decisions import (
    Answer,
    Choice,
    ChoiceAnswer,
    Noul,
    NoulAnswer,
    Question,
    ScoreAnswer,
    options_of,
)

_ROUNDING = 1e-6
"""How far a number may lie outside its range."""


def answer_in(found: object, name: str, question: Question) -> Answer:
    """Return the answer to a question, with the probabilities in the order of the options.

    Raises:
        LMStudioProtocolError: If it is no answer to this question; the message says which value.
    """
    try:
        return _answer(found if is_object(found) else {"type": found}, question)
    except ValueError as error:
        raise LMStudioProtocolError(
            f"Decision: the server's response cannot be read: in the answer to the question {name!r}, {error}; update "
            "LM Studio and this package"
        ) from None


def _answer(found: Mapping[str, Any], question: Question) -> Answer:
    if found.get("type") != question.type:
        raise _wrong("the type", repr(question.type), found.get("type"))
    if isinstance(question, Noul):
        return NoulAnswer(_number("noul", found.get("noul")))
    options, given = options_of(question), found.get("probabilities")
    if not is_object(given) or given.keys() != options.keys():
        raise _wrong("probabilities", f"of {', '.join(options)}", given)
    probabilities = {option: _number(f"the probability of {option!r}", given[option]) for option in options}
    confidence = _number("confidence", found.get("confidence"))
    if isinstance(question, Choice):
        label = found.get("choice")
        if not isinstance(label, str) or label not in options:
            raise _wrong("choice", f"one of {', '.join(options)}", label)
        return ChoiceAnswer(label, probabilities, confidence)
    return ScoreAnswer(_number("score", found.get("score"), len(options) - 1), options, probabilities, confidence)


def _number(name: str, value: object, most: int = 1) -> float:
    if not is_number(value) or not -_ROUNDING <= value <= most + _ROUNDING:
        raise _wrong(name, f"a number from 0 to {most}", value)
    return min(max(value, 0), most)


def _wrong(name: str, expected: str, value: object) -> ValueError:
    return ValueError(f"{name} must be {expected}; got {shown(value)}")
