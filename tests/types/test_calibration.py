"""`calibrate`: from which probability on answers are relied on."""

import math
from typing import Any

import pytest
from langchain_core import decisions as core

import lmstudio_integrations as lms
from lmstudio_integrations.errors import LMStudioValueError


def choice(probability: float, label: str = "a") -> lms.ChoiceAnswer:
    return lms.ChoiceAnswer(label, {label: probability, "other": 1 - probability}, probability)


def test_the_lowest_threshold_within_the_limit_is_found() -> None:
    answers = [choice(each) for each in (0.5, 0.6, 0.7, *[0.9] * 4, *[0.95] * 5)]
    right = ["b", "a", "b", *"a" * 9]
    found = lms.calibrate(answers, right, error_rate=0.1)
    assert found == lms.Calibration(threshold=0.9, kept=9, errors=0, error_rate=1 / 11)
    assert lms.calibrate(answers, right, error_rate=0.17).threshold == 0.6  # (1 + 1) / (11 + 2)
    assert [found.keeps(choice(each)) for each in (0.89, 0.9)] == [False, True]


def test_equal_probabilities_are_kept_together() -> None:
    found = lms.calibrate([choice(0.9)] * 3, ["b", "a", "a"], error_rate=0.3)
    assert found.threshold == math.inf, "one of the three is wrong"


def test_few_examples_prove_little() -> None:
    found = lms.calibrate([choice(1.0)] * 7, "a" * 7)
    assert (found.threshold, found.kept, found.error_rate) == (math.inf, 0, 0.5)
    assert not found.keeps(choice(1.0))
    assert lms.calibrate([choice(1.0)] * 8, "a" * 8).error_rate == 0.1
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


@pytest.mark.parametrize(
    ("answers", "right", "limit", "text"),
    [([choice(1)], [], 0.1, "each answer needs what is right"), ([], [], 0, "between 0 and 1"), ([], [], 1, "between")],
)
def test_invalid_arguments_are_errors(answers: Any, right: Any, limit: float, text: str) -> None:
    with pytest.raises(LMStudioValueError, match=text):
        lms.calibrate(answers, right, error_rate=limit)
