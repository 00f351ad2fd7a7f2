"""The row `embedding`: what vectors are like, and texts that are too long."""

import math
import zlib
from collections.abc import Callable
from itertools import count

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.certify.answers import EMBEDDING, TEXTS
from tests.client.certify.canned import CannedEmbedder, observed, row_of

NUMBERS = count()
LONG = {"last": "^([a-z]+ ){500}"}


def test_a_good_model() -> None:
    row = row_of("embedding", kind="embedding", context_length=512)
    assert row.summary == "dimensions 768, norm 1, 12 of 12 right"
    assert row.advice is None
    assert [each.outcome for each in row.verdicts] == [*["same"] * 4, *["nearer"] * 4, *["taken"] * 4]


def test_a_text_that_is_too_long_may_be_rejected() -> None:
    rule = {"when": LONG, "then": [{"error": "too long"}]}
    row = row_of("embedding", rule, kind="embedding", context_length=512)
    assert [each.outcome for each in row.verdicts if each.part == "too long"] == ["rejected"] * 4
    assert row.share == 1


def test_the_beginning_alone_is_a_text_cut_in_silence() -> None:
    model = CannedEmbedder(lambda text: [float(zlib.crc32(" ".join(text.split()[:512]).encode()))])
    assert observed(EMBEDDING, "too long", model) == [("cut in silence", 0)] * 4


def test_a_long_window_is_not_tried() -> None:
    row = row_of("embedding", kind="embedding", context_length=8192)
    assert [each.outcome for each in row.observations if each.part == "too long"] == ["not tried"]


def by_place(*degrees: float) -> Callable[[str], list[float]]:
    """Return what makes vectors in these directions of the three texts."""

    def vector_of(text: str) -> list[float]:
        (place,) = [place for each in TEXTS for place, known in enumerate(each) if text.endswith(known)]
        return [math.cos(math.radians(degrees[place])), math.sin(math.radians(degrees[place]))]

    return vector_of


@pytest.mark.parametrize(
    ("part", "vector_of", "outcomes"),
    [
        ("dimensions", lambda _: [0.6, 0.8], [("2", 0)]),
        ("norm", lambda _: [0.6, 0.8], [("1", 0)]),
        ("norm", lambda _: [0.6, 0.9], [("not 1", 0)]),
        ("steady", lambda _: [1.0, 0.0], [("same", 1)] * 4),
        ("steady", lambda _: [1.0, 2e-4 * next(NUMBERS)], [("different", 0)] * 4),
        ("similar", by_place(30, 0, 90), [("nearer", 1)] * 4),
        ("similar", by_place(0, 30, 50), [("not nearer", 0)] * 4),
        ("similar", lambda _: [0.0, 0.0], [("not nearer", 0)] * 4),
    ],
)
def test_what_is_checked(part: str, vector_of: Callable[[str], list[float]], outcomes: list[tuple[str, float]]) -> None:
    assert observed(EMBEDDING, part, CannedEmbedder(vector_of)) == outcomes


@pytest.mark.parametrize(
    ("part", "outcome", "advice"),
    [
        ("too long", "cut in silence", 'length_policy="average" embeds all of a text that is too long'),
        ("similar/1", "not nearer", "set query_prefix and document_prefix if the model card names prefixes"),
        ("steady/1", "different", None),
    ],
)
def test_the_advice(part: str, outcome: str, advice: str | None) -> None:
    observation = lms.Observation(case=part, kind="verdict", outcome=outcome)
    assert EMBEDDING.summarize([observation]) == (f"0 of 1 right ({outcome} 1)", advice)
