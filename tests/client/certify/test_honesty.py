"""The row `honesty` of a card."""

from collections import Counter
from typing import Any, cast

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.certify.examiner import Examiner
from lmstudio_integrations.client.certify.serving import BEGINNINGS, SETTINGS
from lmstudio_integrations.client.transport.flows import Flow, run
from tests.client.certify.canned import row_of
from tests.support.certified.rules import HONESTY


def test_a_good_model_keeps_every_setting() -> None:
    row = row_of("honesty", *HONESTY)

    assert (row.summary, row.advice, row.unasked) == ("20 of 20 kept", None, 0)
    assert Counter(each.part for each in row.observations) == {
        setting.part: 4 for setting in SETTINGS if setting.texts is BEGINNINGS
    }


def test_ignored_penalties_are_seen() -> None:
    row = row_of("honesty")  # it repeats the prompt, whatever the penalty

    assert row.summary == "20 of 28 kept; repeat penalty ignored 4; presence penalty ignored 4"
    assert row.advice == "do not rely on repeat_penalty, presence_penalty here"
    assert {each.score for each in row.failures} == {0.5}


def test_what_the_server_rejects_is_seen() -> None:
    row = row_of("honesty", {"when": {"last": "la la"}, "then": [{"error": "no penalties"}]}, *HONESTY)

    assert {(each.case, each.outcome, each.score) for each in row.failures} == {
        ("repeat penalty/1", "rejected", 0),
        ("presence penalty/1", "rejected", 0),
    }


class _Server:
    """Responds to one request after the other, and records their settings."""

    repetition = 0

    def __init__(self, *results: lms.PredictionResult) -> None:
        self.requests: list[dict[str, Any]] = []
        self._results = iter(results)

    def vary(self, text: str) -> str:
        return text

    def complete(self, prompt: str, max_tokens: int, **settings: Any) -> Flow[lms.PredictionResult]:
        yield from ()
        self.requests.append(settings)
        return next(self._results)


def _result(text: str, *tokens: dict[str, Any], predicted: int = 8, reason: str = "eosFound") -> lms.PredictionResult:
    end = lms.PredictionEnd({"stopReason": reason, "predictedTokensCount": predicted}, {}, {}, {})
    return lms.PredictionResult(text, "", end, raw_content=text, tokens=tokens)


def _token(number: int, **more: Any) -> dict[str, Any]:
    return {"text": "x", "id": number, "logProb": -0.5, "candidates": [], **more}


_CASES: list[tuple[str, list[lms.PredictionResult], bool | None]] = [
    ("seed", [_result("a b"), _result("a b")], True),
    ("seed", [_result("a b"), _result("a c")], False),
    ("stop string", [_result("one two three"), _result("one ")], True),
    ("stop string", [_result("one two three"), _result("one two three")], False),
    ("stop string", [_result(" ")], None),
    ("max_tokens", [_result("a", predicted=8, reason="maxPredictedTokensReached")], True),
    ("max_tokens", [_result("a", predicted=9, reason="maxPredictedTokensReached")], False),
    ("max_tokens", [_result("a", predicted=8, reason="userStopped")], False),
    ("max_tokens", [_result("a", predicted=3)], True),
    ("log-probabilities", [_result("a", _token(1), _token(2))], True),
    ("log-probabilities", [_result("a")], False),
    ("log-probabilities", [_result("a", _token(1), _token(2, candidates=None))], False),
    ("logit bias", [_result("a", _token(7)), _result("b", _token(8))], True),
    ("logit bias", [_result("a", _token(7)), _result("a", _token(7))], False),
    ("logit bias", [_result("a")], None),
    ("repeat penalty", [_result("la la"), _result("la do")], True),
    ("repeat penalty", [_result("la la"), _result("la la")], False),
    ("presence penalty", [_result("la do"), _result("la do")], None),
    ("presence penalty", [_result("la la"), _result("la la")], False),
]


@pytest.mark.parametrize(("name", "results", "kept"), _CASES)
def test_a_setting_is_kept_if_the_texts_show_it(
    name: str, results: list[lms.PredictionResult], kept: bool | None
) -> None:
    setting = next(each for each in SETTINGS if each.part == name)

    assert run(setting.check(cast("Examiner", _Server(*results)), "a text")) is kept


SEEDED = {"temperature": 1.0, "seed": 20261126}
OFF = {"repeat_penalty": False, "presence_penalty": False, "frequency_penalty": False}


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("seed", SEEDED, SEEDED),
        ("stop string", {}, {"stop_strings": ["two"]}),
        ("logit bias", {"log_probs": 1}, {"log_probs": 1, "logit_bias": {7: float("-inf")}}),
        ("repeat penalty", OFF, {**OFF, "repeat_penalty": 100.0}),
        ("presence penalty", OFF, {**OFF, "presence_penalty": 100.0}),
    ],
)
def test_the_second_request_differs_by_the_setting_alone(
    name: str, first: dict[str, Any], second: dict[str, Any]
) -> None:
    server = _Server(_result("one two three", _token(7)), _result(""))
    setting = next(each for each in SETTINGS if each.part == name)
    run(setting.check(cast("Examiner", server), "a text"))

    assert server.requests == [first, second]
