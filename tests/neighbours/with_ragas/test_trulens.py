"""An answer from documents is judged by trulens: relevance of the answer and of the context, and groundedness."""

import json

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "trulens-providers-langchain",
    group="evaluation",
    job="judges relevance, the context and groundedness",
    settings="`groundedness_configs=GroundednessConfigs(use_sent_tokenize=False, filter_trivial_statements=False)` "
    "without internet: else it downloads a tokenizer of nltk, `punkt_tab`",
    weekly=True,
)

QUESTION, ANSWER, CONTEXT = "How long is the crossing?", "Twenty minutes. It is red.", "The ferry takes twenty minutes."


def test_answers_are_judged(serve: Serve) -> None:
    from trulens.core.feedback.feedback import GroundednessConfigs
    from trulens.providers.langchain import Langchain

    from lmstudio_integrations.langchain import ChatLMStudio

    def judged(score: int) -> str:
        return json.dumps({"criteria": "It fits.", "supporting_evidence": "It is said.", "score": score})

    server = serve(
        {"when": {"last": f"^{ANSWER}$"}, "then": "It takes twenty minutes.\nIt is red."},
        {"when": {"last": "STATEMENT: It is red"}, "then": judged(0)},
        {"when": {"last": "STATEMENT: It takes"}, "then": judged(3)},
        {"when": {"last": CONTEXT}, "then": judged(2)},
        {"then": judged(3)},
    )
    judge = Langchain(chain=ChatLMStudio(model=CHAT))
    assert judge.relevance(QUESTION, ANSWER) == 1.0
    relevant, reasons = judge.context_relevance_with_cot_reasons(QUESTION, CONTEXT)
    assert (relevant, "It is said." in str(reasons)) == (pytest.approx(2 / 3), True)
    splits = GroundednessConfigs(use_sent_tokenize=False, filter_trivial_statements=False)
    grounded, parts = judge.groundedness_measure_with_cot_reasons(CONTEXT, ANSWER, groundedness_configs=splits)
    assert grounded == 0.5
    assert [each["score"] for each in parts["reasons"]] == [1.0, 0.0]
    assert len(server.predictions) == 5
    assert {record.config["temperature"] for record in server.predictions} == {0.0}
    assert all([each["role"] for each in record.messages] == ["system", "user"] for record in server.predictions)
