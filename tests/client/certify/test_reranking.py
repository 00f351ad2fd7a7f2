"""The row `reranking`: pairs of texts in the right order."""

import pytest

from lmstudio_integrations.client.certify.decisions import PAIRS
from tests.client.certify.canned import row_of

RERANKER = "qwen3-reranker-0.6b"


def test_a_good_reranker() -> None:
    row = row_of("reranking", key=RERANKER)
    assert (row.summary, row.advice) == ("20 of 20 pairs of texts in the right order", None)
    assert (row.share, row.predicted_tokens, row.unasked) == (1, 40, 0)


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (10, "say with instruction= what relevant means"),
        (11, "use another reranker, or name the prompt of this one with template="),
    ],
)
def test_other_texts_that_come_first(wrong: int, advice: str) -> None:
    bad = [{"when": {"last": f"^{pair[2]}"}, "then": [{"relevance": 0.9}]} for pair in PAIRS[:wrong]]
    good = [{"when": {"last": f"^{pair[1]}"}, "then": [{"relevance": 0.5}]} for pair in PAIRS]
    row = row_of("reranking", *bad, *good, key=RERANKER)
    assert [each.case for each in row.failures] == [f"pair/{number}" for number in range(1, wrong + 1)]
    assert row.failures[0].detail.startswith("0.50 for The library opens at nine. 0.90 for The library was built")
    assert row.advice == advice


@pytest.mark.parametrize(
    ("key", "missing"), [("good", "the model is no reranker"), ("bge-reranker-v2-m3", "is a cross-encoder")]
)
def test_models_that_are_not_asked(key: str, missing: str) -> None:
    row = row_of("reranking", key=key)
    assert row.missing
    assert missing in row.missing
    assert not row.observations
