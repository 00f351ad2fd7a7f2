"""Evaluators judge answers: faithfulness, relevancy, correctness, guidelines and pairs, alone and in a batch."""

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-core",
    group="llama-index",
    job="evaluators of faithfulness, relevancy, correctness, guidelines and pairs, and a batch",
)

QUESTION = "How long does the ferry take?"
CONTEXT = "The ferry takes twenty minutes."
RULES = (
    {"when": {"last": "existing YES/NO answer"}, "then": "YES"},
    {"when": {"last": "piece of information is supported[\\s\\S]*Information: The ferry is red"}, "then": "NO"},
    {"when": {"last": "piece of information is supported"}, "then": "YES"},
    {"when": {"last": "in line with the context information"}, "then": "YES"},
    {"when": {"last": "## Reference Answer"}, "then": "4.5\nIt is the same."},
    {"when": {"last": "based on the guidelines"}, "then": '{"passing": false, "feedback": "Say it in minutes."}'},
    {"when": {"last": "Assistant A’s Answer\\]\\nTwenty"}, "then": "It is exact. [[A]]"},
    {"when": {"last": "Assistant B’s Answer\\]\\nTwenty"}, "then": "It is exact. [[B]]"},
)


async def test_evaluators_judge(serve: Serve) -> None:
    from llama_index.core.evaluation import (
        BatchEvalRunner,
        CorrectnessEvaluator,
        FaithfulnessEvaluator,
        GuidelineEvaluator,
        PairwiseComparisonEvaluator,
        RelevancyEvaluator,
    )

    from lmstudio_integrations.llama_index import LMStudio

    server = serve(*RULES)
    llm = LMStudio(model=CHAT, temperature=0).load()
    given = {"query": QUESTION, "response": "Twenty minutes.", "contexts": [CONTEXT]}
    faithful = FaithfulnessEvaluator(llm=llm)
    assert faithful.evaluate(**given).passing is True
    assert faithful.evaluate(query=QUESTION, response="The ferry is red.", contexts=[CONTEXT]).score == 0.0
    correct = CorrectnessEvaluator(llm=llm).evaluate(**given, reference="20 minutes")
    assert (correct.score, correct.passing, correct.feedback) == (4.5, True, "It is the same.")
    guided = GuidelineEvaluator(llm=llm, guidelines="Give a number.").evaluate(**given)
    assert (guided.passing, guided.feedback) == (False, "Say it in minutes.")
    compared = PairwiseComparisonEvaluator(llm=llm).evaluate(**given, second_response="Some time.", reference="20")
    assert (compared.score, compared.pairwise_source) == (1.0, "original")
    alone = len(server.predictions)
    assert alone == 6, "of a pair, both orders"
    assert [each["role"] for each in server.predictions[2].messages] == ["system", "user"]
    runner = BatchEvalRunner({"faithful": faithful, "relevant": RelevancyEvaluator(llm=llm)}, workers=2)
    scores = await runner.aevaluate_response_strs(
        queries=[QUESTION, QUESTION],
        response_strs=["Twenty minutes.", "The ferry is red."],
        contexts_list=[[CONTEXT], [CONTEXT]],
    )
    assert {name: [each.score for each in results] for name, results in scores.items()} == {
        "faithful": [1.0, 0.0],
        "relevant": [1.0, 1.0],
    }
    assert len(server.predictions) == alone + 4
    assert {each.config["temperature"] for each in server.predictions} == {0}
