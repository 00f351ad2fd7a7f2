"""What a run measured, and where; written as JSON and read from it. Pure."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeAlias

from benchmarks.rows import TITLES, Group, Row
from benchmarks.targets import OURS

Measurements: TypeAlias = Mapping[tuple[Group, str, str], Sequence[float]]
"""The value of each round, by group, case and role; infinite for what never happened."""


@dataclass(frozen=True, slots=True)
class Results:
    """One run.

    Attributes:
        date: When, in ISO format.
        rounds: How many rounds were requested.
        machine: What it ran on.
        versions: The versions of Python and of the packages.
        measurements: What it measured.
    """

    date: str
    rounds: int
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    measurements: Measurements


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row.

    Attributes:
        row: The row.
        values: What each role needed; those of variants have the variant with the role.
        limit: What ours should not exceed, if that is known.
    """

    row: Row
    values: Mapping[str, float]
    limit: float | None

    @property
    def reached(self) -> bool | None:
        """Whether ours reached the target; `None` if one of both is unknown."""
        ours = self.values.get(OURS)
        return None if ours is None or self.limit is None else ours <= self.limit


def outcomes(rows: Sequence[Row], measurements: Measurements) -> list[Outcome]:
    """Compare what was measured with the targets."""
    typical = {key: _typical(rounds) for key, rounds in measurements.items() if rounds}
    values = [_values(row, typical) for row in rows]
    return [Outcome(row, each, row.target.limit(each)) for row, each in zip(rows, values, strict=True)]


def _typical(rounds: Sequence[float]) -> float:
    """Return the median; what failed to happen once, such as a cancellation, counts as never."""
    return math.inf if math.inf in rounds else median(rounds)


def _values(row: Row, typical: Mapping[tuple[Group, str, str], float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for (group, case, role), value in typical.items():
        base, _, variant = case.partition(", ")
        below = 1.0 if row.over is None else typical.get((group, row.over, role))
        if (group, base) == (row.group, row.case) and below is not None:
            found[f"{role} ({variant})" if variant else role] = value / below
    return found


def to_json(results: Results) -> str:
    """Return results as JSON: the rounds of each case and role on a line, `null` for what never happened."""
    nested: dict[str, dict[str, dict[str, list[float | None]]]] = {}
    for (group, case, role), rounds in results.measurements.items():
        nested.setdefault(group, {}).setdefault(case, {})[role] = [_rounded(value) for value in rounds]
    members = {
        "date": results.date,
        "rounds": results.rounds,
        "machine": dict(results.machine),
        "versions": dict(results.versions),
        "measurements": nested,
    }
    lines = json.dumps(members, indent=1, ensure_ascii=False)
    return re.sub(r"\[[^\]]*\]", lambda numbers: re.sub(r"\s+", "", numbers[0]), lines) + "\n"


def from_json(text: str) -> Results:
    """Read results from JSON."""
    members: dict[str, Any] = json.loads(text)
    measurements: dict[tuple[Group, str, str], list[float]] = {
        (group, case, role): [math.inf if value is None else value for value in rounds]
        for group in TITLES
        for case, roles in members["measurements"].get(group, {}).items()
        for role, rounds in roles.items()
    }
    return Results(**{**members, "measurements": measurements})


def _rounded(value: float) -> float | None:
    return None if math.isinf(value) else float(f"{value:.4g}")
