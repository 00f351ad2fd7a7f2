"""The row `embedding`: what the vectors are like, and what becomes of a text that is too long."""

import math
from collections.abc import Sequence
from functools import partial
from operator import mul
from typing import cast

from lmstudio_integrations.client.certify.asking import Asking, Case, Row, Summary, random_words
from lmstudio_integrations.client.embeddings import Vectors
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioServerError
from lmstudio_integrations.types.cards import Observation, failures_of, outcomes, share_text

EQUAL = 1e-4
"""How much numbers of equal vectors may differ: several texts may be computed together."""

LONGEST = 2_300
"""Tokens. Eight texts beyond a longer context window would take too long."""

TEXTS = (
    ("The ferry to the island leaves at noon.", "When does the ferry to the island leave?", "Old books smell of dust."),
    ("A swim in the pool costs four euros.", "What is the price of a swim in the pool?", "My uncle plays the violin."),
    ("The bakery sells bread until six.", "Until when can I buy bread in the bakery?", "Saturn has large rings."),
    ("Vaccines protect children from measles.", "Measles is prevented by vaccines.", "The train to Rome was late."),
)
"""Three texts each, of which the first two are about the same."""


def _vectors(asking: Asking, *texts: str) -> Flow[Vectors]:
    return cast("Vectors", (yield from asking.embedder.vectors_of(texts)))


def _dimensions(asking: Asking) -> Flow[None]:
    (vector,) = yield from _vectors(asking, TEXTS[0][0])
    asking.fact("dimensions", len(vector))


def _norm(asking: Asking) -> Flow[None]:
    (vector,) = yield from _vectors(asking, TEXTS[0][0])
    asking.fact("norm", "1" if abs(math.hypot(*vector) - 1) < 1e-3 else "not 1")


def _steady(number: int, asking: Asking) -> Flow[None]:
    text = asking.vary(TEXTS[number - 1][0])
    (first,), (second,) = (yield from _vectors(asking, text)), (yield from _vectors(asking, text))
    is_same = _is_same(first, second)
    asking.verdict(f"steady/{number}", "same" if is_same else "different", is_same)


def _similar(number: int, asking: Asking) -> Flow[None]:
    one, same, other = yield from _vectors(asking, *map(asking.vary, TEXTS[number - 1]))
    is_right = _cosine(one, same) > max(_cosine(one, other), _cosine(same, other))
    asking.verdict(f"similar/{number}", "nearer" if is_right else "not nearer", is_right)


def _too_long(asking: Asking) -> Flow[None]:
    window = asking.info.context_length
    if window > LONGEST:
        asking.fact("too long", "not tried")
        return
    for _ in TEXTS:
        beginning = random_words(window)
        try:
            first, second = yield from _vectors(asking, *(f"{beginning} {random_words(16)}" for _ in range(2)))
        except LMStudioServerError as error:
            asking.verdict("too long", "rejected", 1, str(error))
            continue
        is_cut = _is_same(first, second)  # the end of the text makes no difference
        asking.verdict("too long", "cut in silence" if is_cut else "taken", not is_cut)


def _is_same(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and all(
        abs(first - second) <= EQUAL for first, second in zip(one, other, strict=True)
    )


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(map(mul, one, other)) / ((math.hypot(*one) * math.hypot(*other)) or 1)


def _summarize(observations: Sequence[Observation]) -> Summary:
    facts = {each.case: each.outcome for each in observations if each.kind == "fact"}
    verdicts = [each for each in observations if each.kind == "verdict"]
    failures = failures_of(verdicts)
    texts = [f"{case} {facts[case]}" for case in ("dimensions", "norm", "too long") if case in facts]
    texts += [f"{share_text(verdicts)} right" + (f" ({outcomes(failures)})" if failures else "")] if verdicts else []
    if any(each.outcome == "cut in silence" for each in failures):
        return Summary(", ".join(texts), 'length_policy="average" embeds all of a text that is too long')
    if any(each.part == "similar" for each in failures):
        return Summary(", ".join(texts), "set query_prefix and document_prefix if the model card names prefixes")
    return Summary(", ".join(texts))


EMBEDDING = Row(
    name="embedding",
    question="Are the vectors steady, nearer for similar texts, and not of the beginning of a long text alone?",
    anchor="embedding-endpoints",
    cases=[
        Case("dimensions", _dimensions),
        Case("norm", _norm),
        *(Case(f"steady/{number}", partial(_steady, number)) for number in range(1, 5)),
        *(Case(f"similar/{number}", partial(_similar, number)) for number in range(1, 5)),
        Case("too long", _too_long),
    ],
    prompt_tokens=20_000,
    predicted_tokens=0,
    summarize=_summarize,
    kinds=frozenset({"embedding"}),
    apart=True,
)
