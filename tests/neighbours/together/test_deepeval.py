"""Answers are judged by criteria and for relevancy, each judgement in a schema."""

import json
from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "deepeval",
    group="evaluation",
    job="judges an answer by criteria (GEval) and for relevancy",
    settings="a subclass of `DeepEvalBaseLLM`, whose `generate(prompt, schema)` and `a_generate` call "
    "`model.with_structured_output(schema)`; `DEEPEVAL_PER_TASK_TIMEOUT_SECONDS_OVERRIDE=900` for a slow machine: "
    "by default, a metric ends after 180 s",
    environment={"DEEPEVAL_TELEMETRY_OPT_OUT": "1"},
)

STATEMENTS = {"statements": ["The ferry takes twenty minutes.", "The sky is blue."]}
VERDICTS = {"verdicts": [{"verdict": "yes"}, {"verdict": "no", "reason": "It is about the sky."}]}
RULES: list[dict[str, Any]] = [
    {"when": {"last": "concise evaluation steps"}, "then": json.dumps({"steps": ["Compare the two."]})},
    {"when": {"last": "Compare the two"}, "then": json.dumps({"reason": "They agree.", "score": 8})},
    {"when": {"last": "^Given the text, breakdown"}, "then": json.dumps(STATEMENTS)},
    {"when": {"last": "^For the provided list of statements"}, "then": json.dumps(VERDICTS)},
    {
        "when": {"last": "^Given the answer relevancy score"},
        "then": json.dumps({"reason": "The sky is beside the point."}),
    },
]


@pytest.mark.parametrize("is_async", [True, False])
def test_answers_are_judged(serve: Serve, is_async: bool) -> None:
    from deepeval.metrics import AnswerRelevancyMetric, GEval
    from deepeval.models import DeepEvalBaseLLM
    from deepeval.test_case import LLMTestCase, SingleTurnParams
    from pydantic import BaseModel

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(*RULES)

    class Judge(DeepEvalBaseLLM):
        def load_model(self) -> Any:
            return ChatLMStudio(model=CHAT, temperature=0)

        def generate(self, prompt: str, schema: type[BaseModel]) -> Any:
            return self.model.with_structured_output(schema).invoke(prompt)

        async def a_generate(self, prompt: str, schema: type[BaseModel]) -> Any:
            return await self.model.with_structured_output(schema).ainvoke(prompt)

        def get_model_name(self) -> str:
            return self.model.model

    case = LLMTestCase(
        input="How long does the ferry take?", actual_output="Twenty minutes.", expected_output="It takes 20 minutes."
    )
    judge = Judge()
    correct = GEval(
        name="Correctness",
        criteria="Is the actual output correct?",
        evaluation_params=[SingleTurnParams.ACTUAL_OUTPUT, SingleTurnParams.EXPECTED_OUTPUT],
        model=judge,
        async_mode=is_async,
    )
    relevant = AnswerRelevancyMetric(model=judge, async_mode=is_async)
    scores = [metric.measure(case, _show_indicator=False) for metric in (correct, relevant)]
    assert scores == [0.8, 0.5]
    assert [correct.reason, relevant.reason] == ["They agree.", "The sky is beside the point."]
    assert relevant.evaluation_model == CHAT
    titles = [record.config["structured"]["jsonSchema"]["title"] for record in server.predictions]
    assert titles == ["Steps", "ReasonScore", "Statements", "Verdicts", "AnswerRelevancyScoreReason"]
    assert {record.config["temperature"] for record in server.predictions} == {0}
