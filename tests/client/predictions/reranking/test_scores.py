"""Scores from the log-probabilities of one token."""

import math
from typing import Any

import pytest

from lmstudio_integrations.client.predictions.reranking import Words
from lmstudio_integrations.types.reranking import QWEN3_RERANKER, RerankTemplate

DIGITS = RerankTemplate("{query} {text}", yes="1", no="0")


def token(drawn: str, **candidates: float | None) -> dict[str, Any]:
    """Return a token of the server, with probabilities of its alternatives; underscores are spaces."""
    reported = [
        {
            "text": text.replace("_", " "),
            "id": number,
            "logProb": None if probability is None else math.log(probability),
        }
        for number, (text, probability) in enumerate(candidates.items())
    ]
    own = next((each for each in reported if each["text"] == drawn), {"text": drawn, "id": 99, "logProb": -9.0})
    return {**own, "candidates": reported}


@pytest.mark.parametrize(
    ("given", "score", "exact"),
    [
        (token("yes", yes=0.8, no=0.2), 0.8, True),
        (token("no", yes=0.25, no=0.75), 0.25, True),
        (token("yes", yes=0.5, Yes=0.2, _yes=0.1, no=0.1, _NO=0.1), 0.8, True),
        (token("maybe", yes=0.3, no=0.1, maybe=0.599), 0.75, True),
        (token("yes", yes=0.3, no=0.2, the=0.1, a=0.05), 0.6, False),
        (token("yes", yes=0.9, the=0.09, a=0.0001), 0.9 / 0.9001, True),
        (token("the", no=0.5, the=0.3, a=0.1), 0.1 / 0.6, False),
        (token("the", the=0.5, a=0.1), None, False),
        (token("yes", yes=1.0, no=None), 1.0, True),
        (token("the", yes=None, no=None, the=1.0), None, True),
        (token(" yes", yes=0.8, no=0.2), 0.8 + 0.2 * math.exp(-9), True),
        ({"text": "yes", "id": 1, "logProb": 0.0}, 1.0, True),
        ({"text": "the", "id": 1, "logProb": 0.0, "candidates": []}, None, True),
        ({"text": "yes", "logProb": 1000.0, "candidates": [{"text": "no", "logProb": -(2**50)}]}, 1.0, True),
    ],
)
def test_the_score_is_the_share_of_yes(given: dict[str, Any], score: float | None, exact: bool) -> None:
    words = Words.of(given, QWEN3_RERANKER)
    assert words.score == (None if score is None else pytest.approx(score, rel=1e-4))
    assert words.are_exact is exact


def test_a_template_has_its_own_words() -> None:
    assert Words.of(token("1", **{"1": 0.6, "0": 0.2, "yes": 0.2}), DIGITS).score == pytest.approx(0.75)


def test_a_token_that_was_drawn_and_is_also_an_alternative_counts_once() -> None:
    assert Words.of(token("yes", yes=0.5, no=0.5), QWEN3_RERANKER).score == pytest.approx(0.5)
