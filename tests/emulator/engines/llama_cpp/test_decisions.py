"""Decisions of the bundled model, by each way to ask for them."""

import json
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRouterMiddleware
from langchain.agents.middleware.model_router import ModelChoice
from langchain_core.decisions import Noul
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.tools import ToolMetadata

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioClassifier
from lmstudio_integrations.llama_index import LMStudioEvaluator, LMStudioSelector
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


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_the_bundled_model_routes_and_guards() -> None:
    with Emulator() as server:
        settings: Any = {"model": "smollm2-135m-instruct", "host": server.address}
        chat, classifier = ChatLMStudio(**settings, max_tokens=8), LMStudioClassifier(**settings)
        choices = {"a": ModelChoice(chat, "about ships"), "b": ModelChoice(chat, "about planes")}
        router = ModelRouterMiddleware(choices=choices, instructions="Which one?", classifier=classifier)
        state: Any = create_agent(chat, middleware=[router]).invoke({"messages": [HumanMessage("A ferry?")]})
        assert sum(state["model_route"].probabilities.values()) == pytest.approx(1)
        assert isinstance(state["messages"][-1], AIMessage)
        response = classifier.invoke({"state": "A ferry?", "questions": {"urgent": Noul(instructions="Is it urgent?")}})
        assert 0 < response.nouls["urgent"].noul < 1


def test_the_bundled_model_selects_and_evaluates() -> None:
    with Emulator() as server:
        settings: Any = {"model": "smollm2-135m-instruct", "host": server.address}
        choices = [ToolMetadata("timetables", "ferry"), ToolMetadata("menu of the restaurant", "menu")]
        assert LMStudioSelector(**settings).select(choices, "When does the boat leave?").ind in {0, 1}
        found = LMStudioEvaluator(**settings).evaluate(response="At noon.", contexts=["It leaves at noon."])
    assert found.score is not None
    assert 0 < found.score < 1


def test_weights_are_asked_by_the_engine() -> None:
    weights = "smollm2-135m-instruct"
    with Emulator([{"key": "judge", "kind": "decision", "weights": weights, "preload": True}], offline=True) as server:
        asked = {"model": "judge", "state": STATE, "questions": {"a": {"type": "noul", "instructions": "A refund?"}}}
        status, _, text = get(server, "/v1/systemone", json.dumps(asked).encode())
    body = json.loads(text)
    assert (status, body["error"]["type"]) == (501, "not_supported_error")
    assert "This model is not a decision model" in body["error"]["message"]
