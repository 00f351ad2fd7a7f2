"""Decisions of the bundled model, by each way to ask for them."""

import json
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from tests.emulator.server.test_server import get

pytestmark = pytest.mark.slow

REFUND = lms.Noul(instructions="Is it a refund?", criteria=lms.NoulCriteria(true="money back"))
TEAM: dict[str, Any] = {
    "type": "choice",
    "instructions": "Which team?",
    "criteria": {"billing": "money", "support": None, "sales": {"sells": "things"}},
}
ANGER = lms.Score(instructions="How angry?", criteria=("calm", "angry"))
STATE = "Give me my money back"


def test_the_bundled_model_decides() -> None:
    with Emulator() as server, lms.Client(server.address) as client:
        model = client.llm.model("smollm2-135m-instruct")
        questions: dict[str, Any] = {"refund": REFUND, "team": TEAM, "anger": ANGER}
        decision = model.decide(STATE, questions)
        again = model.decide(STATE, questions)
    refund, team, anger = decision.answers.values()
    assert isinstance(refund, lms.NoulAnswer)
    assert 0 < refund.noul < 1
    assert isinstance(team, lms.ChoiceAnswer)
    assert isinstance(anger, lms.ScoreAnswer)
    for answer in (team, anger):
        assert sum(answer.probabilities.values()) == pytest.approx(1)
        assert answer.unseen < 0.05
    same = again.answers["team"]
    assert isinstance(same, lms.ChoiceAnswer)
    assert same.choice == team.choice


def test_weights_are_asked_by_the_engine() -> None:
    weights = "smollm2-135m-instruct"
    with Emulator([{"key": "judge", "kind": "decision", "weights": weights, "preload": True}], offline=True) as server:
        asked = {"model": "judge", "state": STATE, "questions": {"a": {"type": "noul", "instructions": "A refund?"}}}
        status, _, text = get(server, "/v1/systemone", json.dumps(asked).encode())
    body = json.loads(text)
    assert (status, body["error"]["type"]) == (501, "not_supported_error")
    assert "This model is not a decision model" in body["error"]["message"]
