"""The row `decisions`: questions whose answers are known, of language models and of decision models."""

import pytest

from lmstudio_integrations.client.certify.decisions import MESSAGES
from tests.client.certify.canned import row_of
from tests.support.certified.rules import decisions


def test_a_good_model() -> None:
    row = row_of("decisions", *decisions())
    assert row.summary == (
        "16 of 16 right; 90% sure of choices, of which 100% are right; 4 of 4 the same in another order"
    )
    assert (row.advice, row.unasked, row.predicted_tokens) == (None, 0, 32)
    assert row.prompt_tokens <= 3_000


def test_answers_that_are_wrong() -> None:
    row = row_of("decisions", *decisions(wrong=3))
    assert row.summary.startswith("10 of 16 right; 90% sure of choices, of which 62% are right; 4 of 4 the same")
    assert row.advice == "use a larger model, or a decision model"
    assert [(each.case, each.detail) for each in row.failures][::3] == [
        ("choice/1", "support"),
        ("yes or no/1", "0.30"),
    ]


def test_a_model_that_prefers_a_letter() -> None:
    row = row_of(
        "decisions",
        {"when": {"last": "letter of one option"}, "then": [{"probabilities": {"A": 0.6, "B": 0.2, "C": 0.2}}]},
        {"then": [{"probabilities": {"Yes": 1.0}}]},
    )
    assert row.summary.endswith("0 of 4 the same in another order")
    assert row.failures[-1].detail == "billing, then sales"


def test_a_decision_model() -> None:
    answers = [{"when": {"last": message}, "then": [{"answers": {"it": {team: 1.0}}}]} for message, team, _ in MESSAGES]
    row = row_of("decisions", *answers, kind="decision")
    found = {each.case: each.outcome for each in row.observations if each.kind == "verdict"}
    assert {found[f"choice/{number}"] for number in range(1, 9)} == {"right"}
    assert {found[f"order/{number}"] for number in range(1, 5)} == {"same"}
    assert row.prompt_tokens > 0


def test_models_that_cannot_decide() -> None:
    with pytest.raises(ValueError, match="none of these rows"):
        row_of("decisions", kind="embedding")
    sliver = {"A": 0.01, "B": 0.01, "C": 0.01, "yes": 0.01, "no": 0.01, **{f"w{number}": 0.095 for number in range(10)}}
    for probabilities in ({"Well": 1.0}, sliver):
        row = row_of("decisions", {"then": [{"probabilities": probabilities}]})
        assert {each.outcome for each in row.observations} == {"rejected"}
