"""Answers from documents are scored: faithfulness, relevancy, recall, in ragas's older and newer metrics."""

import json
from typing import Any

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "ragas",
    "langchain-community",
    group="evaluation",
    job="scores an answer for faithfulness, relevancy, and the recall and precision of what was retrieved",
    settings="`pip install 'langchain-community<0.4.2'`: ragas 0.4.3 cannot be imported beside newer ones. "
    "`context_length=8192` if the contexts of a question have more than 2,500 tokens, to which ragas adds up to 1,200. "
    "`RunConfig(max_workers=4, max_retries=1)`: by default, 16 requests wait for one machine, and one that does not "
    "fit is sent 10 times. `LangchainLLMWrapper(model, bypass_temperature=True)`: else it sets the object's "
    "temperature to 0.01, and may leave it so. For `ragas.metrics.collections`, a subclass of "
    "`InstructorBaseRagasLLM` that calls `with_structured_output`: `llm_factory` takes no model of LangChain",
    environment={"RAGAS_DO_NOT_TRACK": "true"},
    weekly=True,
)

FERRY, QUESTION = "The ferry takes twenty minutes.", "How long does the ferry take?"
ROW = {
    "user_input": QUESTION,
    "retrieved_contexts": [FERRY],
    "response": "The ferry takes twenty minutes and is red.",
    "reference": "Twenty minutes.",
}
STATEMENTS = [FERRY, "The ferry is red."]
JUDGED = [{"statement": text, "reason": "It is said or not.", "verdict": int(text == FERRY)} for text in STATEMENTS]
ATTRIBUTED = {"statement": FERRY, "reason": "It is said.", "attributed": 1}
RULES: list[dict[str, Any]] = [
    {"when": {"last": "analyze the complexity"}, "then": json.dumps({"statements": STATEMENTS})},
    {"when": {"last": "judge the faithfulness"}, "then": json.dumps({"statements": JUDGED})},
    {"when": {"last": "Generate a question"}, "then": json.dumps({"question": QUESTION, "noncommittal": 0})},
    {"when": {"last": "can be attributed"}, "then": json.dumps({"classifications": [ATTRIBUTED]})},
    {"when": {"last": "context was useful"}, "then": json.dumps({"reason": "It says so.", "verdict": 1})},
]
SCORES = {
    "faithfulness": 0.5,
    "answer_relevancy": pytest.approx(1.0, abs=1e-5),
    "context_recall": 1.0,
    "llm_context_precision_with_reference": pytest.approx(1.0, abs=1e-5),
}
EMBEDDINGS = (f"{REAL_EMBEDDING}={REAL_EMBEDDING}",)


def test_answers_are_scored(serve: Serve) -> None:
    from ragas import EvaluationDataset, RunConfig, evaluate
    from ragas.llms import LangchainLLMWrapper
    from ragas.metrics import Faithfulness, LLMContextPrecisionWithReference, LLMContextRecall, ResponseRelevancy

    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

    server = serve(*RULES, models=EMBEDDINGS)
    model = ChatLMStudio(model=CHAT, context_length=8192, temperature=0.2)
    scored = evaluate(
        EvaluationDataset.from_list([ROW, ROW]),
        [Faithfulness(), ResponseRelevancy(), LLMContextRecall(), LLMContextPrecisionWithReference()],
        LangchainLLMWrapper(model, bypass_temperature=True),
        LMStudioEmbeddings(model=REAL_EMBEDDING),
        run_config=RunConfig(max_workers=4, max_retries=1),
        show_progress=False,
    )
    assert scored.scores == [SCORES, SCORES]
    predictions = server.predictions
    assert len(predictions) == 2 * (2 + 3 + 1 + 1)  # faithfulness asks twice; relevancy three times, for `strictness`
    assert {record.config["temperature"] for record in predictions} == {0.2}
    assert all("stopStrings" not in record.config and not record.tools for record in predictions)
    assert server.loads[0].config["contextLength"] == 8192
    assert {record.text for record in server.embedded_texts} == {QUESTION}


async def test_newer_metrics_score_answers(serve: Serve) -> None:
    from pydantic import BaseModel
    from ragas.embeddings.base import BaseRagasEmbedding
    from ragas.llms.base import InstructorBaseRagasLLM
    from ragas.metrics.collections import AnswerRelevancy, ContextRecall, Faithfulness

    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

    server = serve(*RULES, models=EMBEDDINGS)
    model, embeddings = ChatLMStudio(model=CHAT, context_length=8192), LMStudioEmbeddings(model=REAL_EMBEDDING)

    class Judge(InstructorBaseRagasLLM):
        def generate(self, prompt: str, response_model: type[BaseModel]) -> Any:
            return model.with_structured_output(response_model).invoke(prompt)

        async def agenerate(self, prompt: str, response_model: type[BaseModel]) -> Any:
            return await model.with_structured_output(response_model).ainvoke(prompt)

    class Vectors(BaseRagasEmbedding):
        def embed_text(self, text: str, **_: Any) -> list[float]:
            return embeddings.embed_query(text)

        async def aembed_text(self, text: str, **_: Any) -> list[float]:
            return await embeddings.aembed_query(text)

    judge = Judge()
    faithful = await Faithfulness(judge).ascore(QUESTION, ROW["response"], [FERRY])
    relevant = await AnswerRelevancy(judge, Vectors()).ascore(QUESTION, ROW["response"])
    recalled = await ContextRecall(judge).ascore(QUESTION, [FERRY], ROW["reference"])
    assert [faithful.value, relevant.value, recalled.value] == [0.5, SCORES["answer_relevancy"], 1.0]
    titles = [record.config["structured"]["jsonSchema"]["title"] for record in server.predictions]
    assert titles == [
        "StatementGeneratorOutput",
        "NLIStatementOutput",
        *["AnswerRelevanceOutput"] * 3,
        "ContextRecallOutput",
    ]
