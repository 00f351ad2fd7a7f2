"""Typed questions: what is wrong in one is named, with what to write."""

import re
from typing import Any

import pytest
from langchain_core import decisions as core

import lmstudio_integrations as lms
from lmstudio_integrations.types.decisions import parse_questions

NOUL: Any = lms.Noul
"""Called as type checkers forbid it."""


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: NOUL("ok?"), "the members of a Noul have names; write Noul(instructions='ok?')"),
        (lambda: NOUL(instruction="ok?"), "Noul: instructions is missing"),
        (lambda: NOUL(instructions="ok?", criterion=1), "unknown member 'criterion'; did you mean 'criteria'?"),
        (lambda: NOUL(instructions=5), "Noul: instructions must be the question as text, or JSON; got 5"),
        (lambda: NOUL(instructions="ok?", criteria={"yes": 1}), "unknown member 'criteria.yes'; known are"),
        (lambda: _choice(["a", "b"]), "must map each label to what it means, or None; write {'a': None, 'b': None}"),
        (lambda: _choice("a"), "must map each label to what it means, or None; write {'a': None, 'b': None}"),
        (lambda: _choice({}), "Choice: criteria must be an object with at least one label"),
        (lambda: _choice({1: None}), "Choice: a label must be a string; got 1; write '1'"),
        (lambda: _choice({"a": None, " ": None}), "Choice: a label is empty: ' '; name what it stands for"),
        (lambda: _score(["a"]), "Score: criteria must be an array of 2 to 10 levels"),
        (lambda: _score("abc"), "Score: criteria must be an array of 2 to 10 levels"),
        (lambda: _score(["a", "b", "a"]), "Score: two levels are the same: 'a'; describe how they differ"),
        (lambda: parse_questions({}), "questions must be an object with at least one question by its id"),
        (lambda: parse_questions({"q": {"type": "boolean"}}), "questions.q: its type is 'boolean'; known are noul,"),
        (lambda: parse_questions({"q": {"instructions": "?"}}), "questions.q: its type is None; known are noul,"),
        (lambda: parse_questions({"q": "Is it?"}), "questions.q: a question must be a Noul, a Choice or a Score"),
        (lambda: parse_questions({"q": "Is it?"}), "; got 'Is it?'; write Noul(instructions='Is it?')"),
        (lambda: parse_questions({"q": lms.Noul}), "; write Noul(instructions=…)"),
        (lambda: parse_questions({"q": None}), "or a dict; got None; write Noul(instructions=…)"),
        (lambda: parse_questions({"q": {"type": "choice", "instructions": "?", "criteria": "a"}}), "write {'a': None,"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_clear_error(make: Any, text: str) -> None:
    with pytest.raises(lms.LMStudioValueError, match=re.escape(text)) as caught:
        make()
    assert "pydantic" not in str(caught.value)
    assert "[type=" not in str(caught.value)


def _choice(criteria: Any) -> lms.Choice:
    return lms.Choice(instructions="?", criteria=criteria)


def _score(criteria: Any) -> lms.Score:
    return lms.Score(instructions="?", criteria=criteria)


def test_questions_may_be_those_of_core() -> None:
    asked = {"a": core.Noul(instructions="?"), "b": core.Score(instructions="?", criteria=["x", "y"])}
    assert parse_questions(asked) == {"a": lms.Noul(instructions="?"), "b": _score(("x", "y"))}
