"""The statistics of a comparison: exact probabilities, and what is decided by them."""

import random
from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.certify.difference import (
    ERROR_LEVEL,
    LOOKS,
    Comparison,
    chance_of_better,
    chance_of_worse,
    smallest_loss,
)
from lmstudio_integrations.types.cards import TOO_FEW


def by_enumeration(cases: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """Return the share of all ways to choose the old observations of each case that are as good as they are."""

    def total(chosen: Sequence[Sequence[int]]) -> int:
        ranks = (
            [2 * sum(other < each for other in pool) + pool.count(each) - 1 for each in pool]
            for pool in ([*old, *new] for old, new in cases)
        )
        return sum(of_case[index] for of_case, indices in zip(ranks, chosen, strict=True) for index in indices)

    ways = [list(combinations(range(len(old) + len(new)), len(old))) for old, new in cases]
    observed = total([tuple(range(len(old))) for old, _ in cases])
    totals = [total(chosen) for chosen in product(*ways)]
    return sum(each >= observed for each in totals) / len(totals)


@pytest.mark.parametrize(
    "cases",
    [
        [([1.0], [0.0, 0.0]), ([1.0], [0.0, 1.0]), ([0.0], [1.0, 1.0])],
        [([3.0, 2.5], [2.6, 1.0, 2.0]), ([1.0, 0.5], [0.5, 0.5])],
        [([1.0, 0.5, 0.0], [0.5, 0.5])],
    ],
)
def test_the_chance_is_the_share_of_all_ways_to_shuffle_the_observations_of_each_case(cases: Any) -> None:
    assert chance_of_worse(cases) == pytest.approx(by_enumeration(cases))
    mirrored = [([-each for each in old], [-each for each in new]) for old, new in cases]
    assert chance_of_better(cases) == pytest.approx(by_enumeration(mirrored))


def test_a_number_must_differ_by_more_than_the_margin() -> None:
    cases = [([10.0] * 4, [8.5] * 16)]
    assert chance_of_worse(cases) < 0.001
    assert chance_of_worse(cases, 1.25) == 1.0
    assert chance_of_worse([([10.0] * 4, [7.9] * 16)], 1.25) < 0.001
    assert chance_of_better([([10.0] * 4, [12.4] * 16)], 1.25) == 1.0
    assert chance_of_better([([10.0] * 4, [12.6] * 16)], 1.25) < 0.001


def verdicts(scores: Sequence[float], case: str = "case/{}", row: Any = "tools") -> lms.CardRow:
    """Return a row with a verdict for each score."""
    observed = [
        lms.Observation(case=case.format(index), kind="verdict", outcome="right" if score else "wrong", score=score)
        for index, score in enumerate(scores)
    ]
    return lms.CardRow(name=row, observations=tuple(observed))


def compare(old: lms.CardRow, measurements: Sequence[lms.CardRow], apart: Sequence[Any] = ()) -> dict[str, Any]:
    """Compare a row with as many measurements as are requested, the last one again and again."""
    comparison = Comparison([old], [measurements[0]], apart)
    while comparison.undecided():
        comparison.add(old.name, measurements[min(comparison.repetitions + 1, len(measurements)) - 1].observations)
    return {change.part: change for change in comparison.changes()}


@pytest.mark.parametrize(
    ("scores", "verdict", "repetitions"),
    [
        ([1] * 40, "same", 1),
        ([0] * 20 + [1] * 20, "worse", LOOKS[0]),
        ([0] * 4 + [1] * 36, "worse", 3),
        ([0] * 2 + [1] * 38, "noise", 1),
    ],
)
def test_a_row_has_changed_if_repetitions_confirm_it(scores: list[int], verdict: str, repetitions: int) -> None:
    change = compare(verdicts([1] * 40), [verdicts(scores)])[""]
    assert (change.verdict, change.repetitions) == (verdict, repetitions)
    assert change.before == "40 of 40"
    better = compare(verdicts(scores), [verdicts([1] * 40)])[""]
    assert better.verdict == verdict.replace("worse", "better")


@pytest.mark.parametrize("number", [1, 2])
def test_a_part_with_too_few_questions_is_unclear_if_it_is_lost(number: int) -> None:
    old, lost = verdicts([1] * number, "part"), verdicts([0] * number, "part")
    other = verdicts([1] * 40, row="structure")
    comparison = Comparison([old, other], [lost, other], ["tools"])
    while comparison.undecided():
        comparison.add("tools", lost.observations)
    changes = {change.name: change for change in comparison.changes()}
    assert (changes["tools part"].verdict, changes["tools part"].smallest) == ("unclear", TOO_FEW)
    assert changes["structure"].verdict == "same"


def test_the_smallest_change_that_is_named_is_found_and_a_smaller_one_is_not() -> None:
    old = verdicts([1] * 40)
    level = Comparison([old], [old], []).level
    lost = smallest_loss(old.observations, level)
    assert lost is not None
    assert compare(old, [verdicts([0] * lost + [1] * (40 - lost))])[""].verdict == "worse"
    assert compare(old, [verdicts([0] * (lost - 1) + [1] * (41 - lost))])[""].verdict == "noise"
    assert smallest_loss(verdicts([1, 0]).observations, level) is None


def test_parts_are_compared_apart_if_the_row_says_so() -> None:
    case, row = "{}/1", "honesty"
    old = lms.CardRow(
        name="honesty",
        observations=tuple(
            each.model_copy(update={"case": name})
            for name in ("seed", "stop string")
            for each in verdicts([1] * 4, case, row).observations
        ),
    )
    new = old.model_copy(
        update={
            "observations": tuple(
                each.model_copy(update={"score": 0.5, "outcome": "ignored"}) if each.case == "seed" else each
                for each in old.observations
            )
        }
    )
    changes = compare(old, [new], ["honesty"])
    assert {name: change.verdict for name, change in changes.items()} == {"seed": "worse", "stop string": "same"}
    assert changes["seed"].now.startswith("0 of ")


@pytest.mark.parametrize(
    ("asked", "again", "verdict"),
    [
        ([("speed", "at once")], [], "worse"),
        ([("speed", "at once")], [10.0], "same"),
        ([("speed", "alone")], [], None),
        ([("window", "at once")], [], None),
        ([("speed", "at once/4")], [], None),
        ([("speed", "at once/8")], [], "worse"),
    ],
)
def test_what_a_question_does_not_observe_any_more_is_lost_if_it_was_asked_and_a_repetition_confirms_it(
    asked: list[Any], again: list[float], verdict: str | None
) -> None:
    def speed(**cases: float) -> lms.CardRow:
        observed = [
            lms.Observation(case=case, kind="number", outcome=f"{of} ms", score=of) for case, of in cases.items()
        ]
        return lms.CardRow(name="speed", observations=tuple(observed))

    old, new = speed(alone=5.0, **{"at once/8": 10.0}), speed(alone=5.0)
    comparison = Comparison([old], [new], ["speed"], asked)
    while comparison.undecided():
        comparison.add("speed", speed(**dict(zip(["at once/8"], again, strict=False))).observations)
    changes = {change.part: change for change in comparison.changes()}
    assert changes["alone"].verdict == "same"
    assert (changes["at once"].verdict if "at once" in changes else None) == verdict
    assert verdict != "worse" or changes["at once"].now == "not observed"


def fact(outcome: str, score: float = 0.0) -> lms.CardRow:
    return lms.CardRow(
        name="window", observations=(lms.Observation(case="loaded", kind="fact", outcome=outcome, score=score),)
    )


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        ([fact("4096", 4096)], "same"),
        ([fact("2048", 2048)], "worse"),
        ([fact("8192", 8192)], "better"),
        ([fact("4,096 tokens", 4096)], "changed"),
        ([fact("2048", 2048), fact("4096", 4096)], "noise"),
    ],
)
def test_a_fact_has_changed_if_it_is_confirmed_once(measured: list[lms.CardRow], verdict: str) -> None:
    assert compare(fact("4096", 4096), measured)["loaded"].verdict == verdict


def test_two_cards_of_an_unchanged_model_differ_as_rarely_as_promised() -> None:
    chance = random.Random(20261126)
    alarms = 0
    for _ in range(60):
        likely = [chance.choice([0.6, 0.9, 0.99]) for _ in range(40)]

        def measure(likely: Sequence[float] = likely) -> lms.CardRow:
            return verdicts([int(chance.random() < each) for each in likely])

        alarms += compare(measure(), [measure() for _ in range(LOOKS[-1])])[""].verdict in {"worse", "better"}
    assert alarms / 60 <= ERROR_LEVEL
