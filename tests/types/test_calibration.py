"""`calibrate`: from which probability on answers are relied on."""

import enum
import math
from typing import Any

import numpy as np
import pytest
from langchain_core import decisions as core

import lmstudio_integrations as lms


def choice(probability: float, label: str = "a") -> lms.ChoiceAnswer:
    return lms.ChoiceAnswer(label, {label: probability, "b": 1 - probability}, probability)


def test_the_lowest_threshold_within_the_limit_is_found() -> None:
    answers = [choice(each) for each in (0.5, 0.6, 0.7, *[0.9] * 4, *[0.95] * 5)]
    right = ["b", "a", "b", *"a" * 9]
    found = lms.calibrate(answers, right, error_rate=0.1)
    assert found == lms.Calibration(threshold=0.9, kept=9, errors=0, expected_error_rate=1 / 11)
    assert lms.calibrate(answers, right, error_rate=0.17).threshold == 0.6  # (1 + 1) / (11 + 2)
    assert [found.keeps(choice(each)) for each in (0.89, 0.9)] == [False, True]


def test_equal_probabilities_are_kept_together() -> None:
    found = lms.calibrate([choice(0.9)] * 3, ["b", "a", "a"], error_rate=0.3)
    assert found.threshold == math.inf, "one of the three is wrong"


def test_few_examples_prove_little() -> None:
    found = lms.calibrate([choice(1.0)] * 7, "a" * 7)
    assert (found.threshold, found.kept, found.expected_error_rate) == (math.inf, 0, 0.5)
    assert not found.keeps(choice(1.0))
    assert lms.calibrate([choice(1.0)] * 8, "a" * 8).expected_error_rate == 0.1
    assert lms.calibrate([], []).threshold == math.inf


@pytest.mark.parametrize(
    ("answer", "right", "wrong", "sure"),
    [
        (lms.NoulAnswer(0.8), True, False, 0.8),
        (lms.NoulAnswer(0.1), False, True, 0.9),
        (lms.ScoreAnswer(0.9, {}, {"0": 0.3, "1": 0.6, "2": 0.1}, 0.6), 1, 0, 0.6),
        (core.NoulAnswer(type="noul", noul=0.8), True, False, 0.8),
        (
            core.ChoiceAnswer(type="choice", choice="a", probabilities={"a": 0.7, "b": 0.3}, confidence=0.7),
            "a",
            "b",
            0.7,
        ),
    ],
)
def test_each_type_of_answer_counts(answer: Any, right: object, wrong: object, sure: float) -> None:
    assert lms.calibrate([answer] * 8, [right] * 8).threshold == pytest.approx(sure)
    assert lms.calibrate([answer] * 8, [wrong] * 8).threshold == math.inf


class Team(enum.StrEnum):
    A = "a"


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (lms.NoulAnswer(0.9), np.array([True])),
        (lms.ScoreAnswer(0.9, {}, {"0": 0.1, "1": 0.9}, 0.9), np.array([1])),
        (choice(0.9), np.array(["a"])),
        (choice(np.float64(0.9)), np.array(["a"])),
        (choice(0.9), [Team.A]),
    ],
)
def test_what_is_right_may_come_from_a_table_or_be_a_member_of_an_enum(answer: Any, right: Any) -> None:
    assert lms.calibrate([answer] * 20, list(right) * 20).threshold == pytest.approx(0.9)


def test_an_answer_that_the_model_would_not_give_is_never_kept() -> None:
    """All its answers together have five percent of the probability."""
    unsaid = lms.ChoiceAnswer("a", {"a": 0.99, "b": 0.01}, 0.99, unseen=0.95)
    found = lms.calibrate([choice(0.9)] * 9 + [unsaid] * 3, "a" * 12)
    assert (found.threshold, found.kept) == (0.9, 9)
    assert (found.keeps(choice(0.9)), found.keeps(unsaid)) == (True, False)


SURE = [choice(0.9)] * 20
NOUL = lms.NoulAnswer(0.9)
TEXT: Any = "0.9"
LEVEL = lms.ScoreAnswer(0.9, {}, {"0": 0.3, "1": 0.7}, 0.7)


@pytest.mark.parametrize(
    ("answers", "right", "limit", "text"),
    [
        ([choice(1)], [], 0.1, "each answer needs what is right; got 1 answers, and 0 of them"),
        ([], [], 0, "between 0 and 1"),
        ([], [], 1, "between"),
        ([], [], "0.1", "error_rate must be between 0 and 1, such as 0.1; got '0.1'"),
        (None, [], 0.1, "answers must be a list; got None"),
        (SURE, None, 0.1, "right must be a list; got None"),
        (SURE, [True] * 20, 0.1, r"right\[0\] must be the right one of 'a', 'b'; got True"),
        (SURE, ["a"] * 19 + ["c"], 0.1, r"right\[19\] must be the right one of 'a', 'b'; got 'c'"),
        (SURE, [{"label": "a"}] * 20, 0.1, r"right\[0\] must be the right one of"),
        ([NOUL] * 20, [1] * 20, 0.1, r"right\[0\] must be True or False, whether yes is right; got 1"),
        ([NOUL] * 20, ["yes"] * 20, 0.1, "must be True or False, whether yes is right; got 'yes'"),
        ([LEVEL] * 20, [2.0] * 20, 0.1, r"right\[0\] must be the right level, from 0 to 1; got 2.0"),
        ([LEVEL] * 20, [None] * 20, 0.1, "the right level, from 0 to 1; got None"),
        ([LEVEL], [True], 0.1, "the right level, from 0 to 1; got True"),
        (
            [NOUL, *SURE],
            [True, *"a" * 20],
            0.1,
            r"of one question; answers\[0\] is of the type 'noul', and answers\[1\]",
        ),
        ([0.5], [True], 0.1, r"answers\[0\] must be an answer, such as decision.answers\['urgent'\].*; got 0.5"),
        ([None], [True], 0.1, r"answers\[0\] must be an answer"),
        ([{"type": "noul", "noul": 1}], [True], 0.1, r"answers\[0\] must be an answer"),
        (
            [choice(0.9), lms.ChoiceAnswer("c", {"a": 1.0}, 1.0)],
            ["a", "a"],
            0.1,
            r"answers\[1\] has no probability of what it says; pass answers as decide returned them; got Choice",
        ),
        (
            [lms.ScoreAnswer(0.9, {}, {}, 0.9)],
            [1],
            0.1,
            r"answers\[0\] has no probability of what it says; pass answers as",
        ),
        (
            [lms.NoulAnswer(TEXT)],
            [True],
            0.1,
            r"answers\[0\] has no probability of what it says; .*; got NoulAnswer\(noul='0\.9'",
        ),
        ([choice(math.nan)], ["a"], 0.1, r"answers\[0\] has no probability of what it says; pass answers as"),
    ],
)
def test_invalid_arguments_are_errors(answers: Any, right: Any, limit: Any, text: str) -> None:
    with pytest.raises(lms.LMStudioValueError, match=text):
        lms.calibrate(answers, right, error_rate=limit)


def test_only_answers_are_kept() -> None:
    with pytest.raises(lms.LMStudioValueError, match=r"the answer must be an answer, .*; got 0\.9"):
        lms.Calibration(0.5, 1, 0, 0.1).keeps(0.9)
    with pytest.raises(lms.LMStudioValueError, match="the answer has no probability of what it says; pass answers as"):
        lms.Calibration(0.5, 1, 0, 0.1).keeps(lms.ChoiceAnswer("c", {"a": 1.0}, 1.0))
