"""The row `decisions`: questions whose answers are known, of language models and of decision models."""

from typing import Any

import pytest

from lmstudio_integrations.client.certify.decisions import MESSAGES
from tests.client.certify.canned import row_of

TEAMS = ("billing", "support", "sales")


def rules(wrong: int = 0, letter: float = 0.9) -> list[dict[str, Any]]:
    """Return the rules of a language model whose first answers are wrong; it is so sure of the others."""
    made: list[dict[str, Any]] = []
    for number, (message, team, is_complaint) in enumerate(MESSAGES):
        answer = TEAMS[(TEAMS.index(team) + (number < wrong)) % 3]
        for right in "ABC":
            others = [each for each in "ABC" if each != right]
            shares = {right: letter, **dict.fromkeys(others, (1 - letter) / 2)}
            made.append(
                {"when": {"last": f"{message}(.|\\n)*{right}\\. {answer}"}, "then": [{"probabilities": shares}]}
            )
        yes = 0.8 if is_complaint != (number < wrong) else 0.3
        made.append({"when": {"last": message}, "then": [{"probabilities": {"yes": yes, "no": 1 - yes}}]})
    return made


def test_a_good_model() -> None:
    row = row_of("decisions", *rules())
    assert row.summary == "16 of 16 right; 90% sure of choices, 100% right; their order changes 0%"
    assert (row.advice, row.unasked, row.predicted_tokens) == (None, 0, 24)
    assert row.prompt_tokens <= 3_000


def test_answers_that_are_wrong() -> None:
    row = row_of("decisions", *rules(wrong=3))
    assert row.summary == "10 of 16 right; wrong 6; 90% sure of choices, 62% right; their order changes 0%"
    assert row.advice == "use a larger model, or a decision model"
    assert [each.case for each in row.failures][:2] == ["choice/1", "yes or no/1"]
    assert row.failures[0].detail == "support: I was charged twice this month."


def test_a_model_that_prefers_a_letter() -> None:
    row = row_of(
        "decisions",
        {"when": {"last": "letter of one option"}, "then": [{"probabilities": {"A": 0.6, "B": 0.2, "C": 0.2}}]},
        {"then": [{"probabilities": {"Yes": 1.0}}]},
    )
    assert "their order changes 40%" in row.summary


def test_a_decision_model() -> None:
    answers = [
        {"when": {"last": message}, "then": [{"answers": {"team": {team: 1.0}, "complaint": 0.9 if yes else 0.1}}]}
        for message, team, yes in MESSAGES
    ]
    row = row_of("decisions", *answers, kind="decision")
    assert row.summary == "16 of 16 right; 100% sure of choices, 100% right; their order changes 0%"


@pytest.mark.parametrize("kind", ["llm", "embedding"])
def test_models_that_cannot_decide(kind: str) -> None:
    if kind == "embedding":
        with pytest.raises(ValueError, match="none of these rows"):
            row_of("decisions", kind=kind)
        return
    row = row_of("decisions", {"then": "Well, that depends."})
    assert {each.outcome for each in row.observations} == {"rejected"}
