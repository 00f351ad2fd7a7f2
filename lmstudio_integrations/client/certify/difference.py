"""Whether a part of a card differs from an earlier one by more than chance. Pure functions.

If nothing has changed, it is chance which observations of a case stand on the old card and which on the new one. So the
test shuffles them within each case, and asks how often the old ones come out as much better as they did: an exact
permutation test, stratified by case. It needs no model of the noise, and no case needs to be as hard as another.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import NamedTuple

from lmstudio_integrations.types.cards import (
    MARGIN,
    TOO_FEW,
    CardRow,
    Change,
    Kind,
    Observation,
    RowName,
    Verdict,
    failures_of,
    medians,
    outcomes,
    share_text,
)

ERROR_LEVEL = 0.05
"""How often a comparison of two cards of an unchanged model may find any change."""

LOOKS = (2, 3, 4, 6)
"""After how many measurements it is decided whether a part has changed; the first one alone never decides."""

SUSPICIOUS = 0.15
"""A part is measured again as long as chance would do this, or better, less often."""

FAILED = frozenset({"rejected", "does not fit"})
"""The outcomes of questions that could not be asked, instead of what they measure."""

Scores = Sequence[float]
Strata = Sequence[tuple[Scores, Scores]]
"""The scores of each case: those on the old card, those on the new one."""


class Part(NamedTuple):
    """What is compared as one: the verdicts of a row, or the observations of one kind of a part of it."""

    row: RowName
    name: str
    kind: Kind


@dataclass(slots=True)
class Compared:
    """A part on both cards.

    Attributes:
        part: The part.
        old: The observations of the old card.
        new: Those of all measurements now.
        verdict: Whether it has changed, once that is decided.
        repetitions: How often it was measured now.
    """

    part: Part
    old: Sequence[Observation]
    new: list[Observation]
    verdict: Verdict | None = None
    repetitions: int = 1

    @property
    def pooled(self) -> bool:
        """Whether all of its verdicts are one case.

        That finds what concerns a whole part, and errs on the safe side if its questions are not equally hard, because
        each is asked equally often.
        """
        return bool(self.part.name) and self.part.kind == "verdict"

    def decide(self, level: float, repetitions: int) -> None:
        """Decide whether it has changed, if that can be said.

        Args:
            level: The probability below which a change is confirmed.
            repetitions: How often it was measured.
        """
        self.repetitions = repetitions
        is_equal = _outcomes(self.old) == _outcomes(self.new)
        if not self.new:
            # What is not observed any more, because the server rejects it or the model cannot do it any more.
            self.verdict = "worse" if repetitions > 1 else None
        elif self.part.kind == "fact":
            self.verdict = "same" if is_equal else _direction(self.old, self.new) if repetitions > 1 else None
        else:
            is_number = self.part.kind == "number"
            cases = strata(self.old, self.new, pooled=self.pooled)
            margin = MARGIN if is_number else 1.0
            worse, better = chance_of_worse(cases, margin), chance_of_better(cases, margin)
            if repetitions in LOOKS and min(worse, better) <= level:
                self.verdict = "worse" if worse < better else "better"
            elif min(worse, better) > SUSPICIOUS or repetitions >= LOOKS[-1]:
                self.verdict = "same" if is_equal or (is_number and repetitions == 1) else "noise"

    def change(self, level: float) -> Change:
        """Return what became of it."""
        lost = smallest_loss(self.old, level, pooled=self.pooled) if self.part.kind == "verdict" else None
        smallest = {
            "number": f"a factor of {MARGIN:g}",
            "fact": "any",
            "verdict": f"{lost} of {len(self.old)}" if lost else TOO_FEW,
        }
        verdict: Verdict = self.verdict or "noise"
        if verdict == "noise" and smallest[self.part.kind] == TOO_FEW and any(each.score == 1 for each in self.old):
            verdict = "unclear"
        return Change(
            row=self.part.row,
            part=self.part.name,
            kind=self.part.kind,
            verdict=verdict,
            before=_text(self.old),
            now=_text(self.new) if self.new else "not observed",
            repetitions=self.repetitions,
            smallest=smallest[self.part.kind],
        )


class Comparison:
    """Two cards of one model, and what was measured again since.

    Args:
        old_rows: The rows of the earlier card.
        new_rows: Those of the new one.
        apart: The rows whose parts are compared on their own.
        asked: The questions of the new card by their rows: what one of them observed once, and not any more, is lost.
    """

    def __init__(
        self,
        old_rows: Iterable[CardRow],
        new_rows: Iterable[CardRow],
        apart: Iterable[RowName],
        asked: Iterable[tuple[RowName, str]] = (),
    ) -> None:
        self._apart = frozenset(apart)
        rows = list(new_rows)
        before, now = self._parts(old_rows), self._parts(rows)
        failed = {(row.name, each.part) for row in rows for each in row.observations if each.outcome in FAILED}
        missing = {row.name for row in rows if row.missing}
        questions = set(asked)
        self.compared: dict[Part, Compared] = {}
        for part, observations in before.items():
            cases = {each.case for each in observations} & {each.case for each in now.get(part, ())}
            if cases:
                old, new = ([each for each in some if each.case in cases] for some in (observations, now[part]))
                self.compared[part] = Compared(part, old, new)
            elif part.row in missing or (part.row, part.name) in failed:
                self.compared[part] = Compared(part, observations, [])
            elif lost := [each for each in observations if not questions.isdisjoint(_names(part.row, each.case))]:
                self.compared[part] = Compared(part, lost, [])
        tested = sum(part.kind != "fact" for part in self.compared)
        self.level: float = ERROR_LEVEL / (2 * len(LOOKS) * max(1, tested))
        """The probability below which one look at one part confirms a direction, so that all keep `ERROR_LEVEL`."""
        self.repetitions: int = 0
        """How many measurements `undecided` has seen."""

    def undecided(self) -> dict[RowName, set[str]]:
        """Decide what can be decided after a measurement.

        Returns:
            The rows to measure again, with their parts; "" is the whole row.
        """
        self.repetitions += 1
        rows: defaultdict[RowName, set[str]] = defaultdict(set)
        for each in self.compared.values():
            if each.verdict is None:
                each.decide(self.level, self.repetitions)
            if each.verdict is None:
                rows[each.part.row].add(each.part.name)
        return dict(rows)

    def add(self, row: RowName, observations: Iterable[Observation]) -> None:
        """Add a further measurement of the undecided parts of a row."""
        for part, some in self._parts([CardRow(name=row, observations=tuple(observations))]).items():
            if part in self.compared and self.compared[part].verdict is None:
                cases = {each.case for each in self.compared[part].old}
                self.compared[part].new += [each for each in some if each.case in cases]

    def changes(self) -> tuple[Change, ...]:
        """Return what became of each part."""
        return tuple(each.change(self.level) for each in self.compared.values())

    def _parts(self, rows: Iterable[CardRow]) -> dict[Part, list[Observation]]:
        parts: defaultdict[Part, list[Observation]] = defaultdict(list)
        for row in rows:
            for each in row.observations:
                name = each.part if row.name in self._apart or each.kind != "verdict" else ""
                parts[Part(row.name, name, each.kind)].append(each)
        return parts


def _names(row: RowName, case: str) -> list[tuple[RowName, str]]:
    """Return a case and what it is a part of: `turn/2` belongs to the question `turn`."""
    parts = case.split("/")
    return [(row, "/".join(parts[:end])) for end in range(1, len(parts) + 1)]


def _outcomes(observations: Iterable[Observation]) -> set[tuple[str, str]]:
    return {(each.case, each.outcome) for each in observations}


def _direction(old: Iterable[Observation], new: Sequence[Observation]) -> Verdict:
    """Return whether facts became worse or better by their scores, where they have any; `noise` if they vary."""
    if len(_outcomes(new)) > len({each.case for each in new}):
        return "noise"
    before, now = (sum({each.case: each.score for each in some}.values()) for some in (old, new))
    return "worse" if now < before else "better" if now > before else "changed"


def _text(observations: Sequence[Observation]) -> str:
    """Return in a few words what was observed of a part."""
    if observations[0].kind == "verdict":
        failures = failures_of(observations)
        return share_text(observations) + (f" ({outcomes(failures)})" if failures else "")
    if observations[0].kind == "fact":
        return ", ".join(dict.fromkeys(each.outcome for each in observations))
    middle = medians(observations).items()
    return ", ".join(f"{case.partition('/')[2]}: {each.outcome}".removeprefix(": ") for case, each in middle)


def strata(old: Iterable[Observation], new: Iterable[Observation], *, pooled: bool = False) -> Strata:
    """Return the scores of each case; if `pooled`, all of them are one."""
    by_case: defaultdict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for index, observations in enumerate((old, new)):
        for each in observations:
            by_case["" if pooled else each.case][index].append(each.score)
    return list(by_case.values())


def chance_of_worse(cases: Strata, margin: float = 1.0) -> float:
    """Return how probable it is that chance alone makes the old scores at least as much better as they are.

    Args:
        cases: The scores.
        margin: The new ones count as so many times higher: how much worse is no change.
    """
    distribution: Mapping[int, float] = {0: 1.0}
    observed = 0
    for before, now in cases:
        ranks = _ranks([*before, *(score * margin for score in now)])
        observed += sum(ranks[: len(before)])
        distribution = _sums(distribution, ranks, len(before))
    return min(1.0, sum(probability for total, probability in distribution.items() if total >= observed))


def chance_of_better(cases: Strata, margin: float = 1.0) -> float:
    """Return how probable it is that chance alone makes the new scores at least as much better as they are."""
    return chance_of_worse(
        [([-score for score in before], [-score for score in now]) for before, now in cases], 1 / margin
    )


def smallest_loss(old: Sequence[Observation], level: float, *, pooled: bool = False) -> int | None:
    """Return how many of the old successes must fail in every repetition to be confirmed; `None` if all do not.

    Args:
        old: The verdicts of the old card.
        level: The probability below which a change is confirmed.
        pooled: As of `strata`.
    """
    chance, lost = 1.0, 0
    cases = [scores for scores, _ in strata(old, (), pooled=pooled) if max(scores) == 1]
    for scores in sorted(cases, key=len):
        chance *= chance_of_worse([(scores, [0.0] * len(scores) * LOOKS[-1])])
        lost += scores.count(1)
        if chance <= level:
            return lost
    return None


def _ranks(scores: Scores) -> list[int]:
    """Return twice the rank of each score; equal ones have the mean of their ranks."""
    counts = Counter(scores)
    ranks: dict[float, int] = {}
    below = 0
    for score in sorted(counts):
        ranks[score] = 2 * below + counts[score] - 1
        below += counts[score]
    return [ranks[score] for score in scores]


def _sums(distribution: Mapping[int, float], ranks: Sequence[int], chosen: int) -> Mapping[int, float]:
    """Return the distribution of a sum to which a random choice of so many ranks is added."""
    ways: list[Counter[int]] = [Counter({0: 1}), *(Counter[int]() for _ in range(chosen))]
    for rank in ranks:
        for size in range(chosen, 0, -1):
            for total, count in ways[size - 1].items():
                ways[size][total + rank] += count
    all_ways = comb(len(ranks), chosen)
    sums: defaultdict[int, float] = defaultdict(float)
    for total, probability in distribution.items():
        for added, count in ways[chosen].items():
            sums[total + added] += probability * (count / all_ways)
    return sums
