"""The row `speed`: what is measured, and what is advised because of it."""

from collections import Counter
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.certify.serving import SPEED
from lmstudio_integrations.emulator import Emulator
from tests.support.certified.rules import SPEED as STORIES

STORY = {"last": "^Write a long story"}


def measure(drafts: tuple[str, ...] = (), **fields: Any) -> lms.CardRow:
    models: list[Any] = [{"key": "good", "rules": STORIES, **fields}, "small"]
    with Emulator(models) as server, lms.Client(server.address) as client:
        (row,) = client.certify("good", rows=["speed"], drafts=drafts).rows
    return row


def test_the_numbers_of_a_good_model() -> None:
    row = measure(drafts=("small",), context_length=16_384)
    numbers = Counter(each.case for each in row.observations if each.kind == "number")
    assert numbers == {
        "alone": 4,
        "first token/100": 3,
        "first token/1000": 3,
        "first token/8000": 1,
        "at once/2": 2,
        "at once/4": 2,
        "at once/8": 2,
        "draft/small": 4,
    }
    assert [each.outcome for each in row.observations if each.kind == "fact"] == ["4"]
    for each in row.observations:
        value = float(each.outcome.split()[0].replace(",", ""))
        assert each.score == pytest.approx(1 / value if each.part == "first token" else value, rel=0.02)
    assert row.unasked == 0
    assert row.predicted_tokens == 8 * 64 + 7 + 28 * 48


def test_a_prompt_that_does_not_fit_is_not_timed() -> None:
    row = measure(context_length=1_200)
    assert {each.case for each in row.observations if each.part == "first token"} == {"first token/100"}


def test_a_response_of_a_few_tokens_says_nothing() -> None:
    row = measure(rules=[{"when": STORY, "then": [{"text": "Once upon a time."}]}])
    assert {each.part for each in row.observations} == {"first token", "slots"}


def test_a_server_that_fails_is_an_observation() -> None:
    row = measure(rules=[{"when": STORY, "then": [{"error": "The engine has failed"}]}])
    assert {each.case for each in row.observations if each.outcome == "rejected"} == {"alone", "at once"}
    assert row.summary.endswith("; rejected 2")


def number(case: str, value: float, unit: str = "tokens/s") -> lms.Observation:
    score = 1 / value if unit == "s" else value
    return lms.Observation(case=case, kind="number", outcome=f"{value:g} {unit}", score=score)


@pytest.mark.parametrize(
    ("rates", "slots", "best", "advice"),
    [
        ({1: 41, 2: 60, 4: 96, 8: 97}, 4, 4, None),
        ({1: 41, 2: 60, 4: 96, 8: 80}, 8, 4, "max_parallel_predictions=4 is faster than 8"),
        ({1: 41, 2: 20, 4: 20, 8: 20}, 4, 1, "max_parallel_predictions=1 is faster than 4"),
        ({1: 41, 2: 60, 4: 96, 8: 97}, 1, 1, None),  # the others have waited
        ({1: 41, 2: 60, 4: 96, 8: 60}, 0, 4, None),  # how many run at once is not known, and not a setting
    ],
)
def test_the_best_number_of_slots(rates: dict[int, float], slots: int, best: int, advice: str | None) -> None:
    observations = [
        *(number("alone" if count == 1 else f"at once/{count}", rate) for count, rate in rates.items()),
        lms.Observation(case="slots", kind="fact", outcome=str(slots), score=slots),
    ]
    summary = SPEED.summarize(observations)
    assert summary.advice == advice
    assert summary.text.startswith("41 tokens/s alone; ")
    assert summary.text.endswith(f"; best parallel {best}")


@pytest.mark.parametrize(
    ("rate", "advice"), [(40, "leave the draft model out: draft_model='a/b' is slower"), (50, None)]
)
def test_a_draft_model_that_is_slower(rate: float, advice: str | None) -> None:
    numbers = [number("alone", 41), number("draft/a/b", rate), number("draft/a/b accepted", 61, "%")]
    assert SPEED.summarize(numbers) == (f"41 tokens/s alone; draft a/b {rate} tokens/s, 61 % accepted", advice)


def test_the_line_has_the_medians_of_the_first_tokens() -> None:
    seconds: dict[int, list[float]] = {100: [0.1, 0.9, 0.2], 1000: [1, 2, 9], 8000: [7]}
    numbers = [number(f"first token/{length}", each, "s") for length, some in seconds.items() for each in some]
    assert SPEED.summarize(numbers) == ("first token 0.2 s (100), 2 s (1,000), 7 s (8,000)", None)
