"""Renders measurements as a table in Markdown. Pure."""

import math
from collections.abc import Iterable, Mapping
from statistics import median
from typing import TypeAlias

from tests.benchmarks.rows import FLOOR, OURS, Group, Row

Measurements: TypeAlias = dict[tuple[Group, str, str], list[float]]
"""All that was measured, by group, case and role."""

_HEAD = ("case", "unit", "floor", "ours", "peers", "target", "target here", "reached")

_NOISE = 0.05
"""How far a ratio may be above the floor's and still count as no higher."""


def render(rows: list[Row], measurements: Mapping[tuple[Group, str, str], list[float]], rounds: int) -> str:
    """Return the table, and above it how much slower this machine is than that of the targets."""
    medians = {key: median(values) for key, values in measurements.items() if values}
    values = [_values(row, medians) for row in rows]
    slowness = [_slowness(row, each) for row, each in zip(rows, values, strict=True)]
    overall = median([each for each in slowness if each is not None] or [1.0])
    lines = [_line(row, each, slow or overall) for row, each, slow in zip(rows, values, slowness, strict=True)]
    opening = (
        f"Medians of {rounds} rounds. This machine took {overall:.2f} times the CPU of that of the targets. "
        "`target here` is the target times what the floor and the peers of the same row took more, or times that "
        "where none of them is known."
    )
    return "\n".join([opening, "", _cells(_HEAD), _cells("---" for _ in _HEAD), *lines])


def _slowness(row: Row, measurements: Mapping[str, float]) -> float | None:
    """Return how much more CPU others needed for this than where the targets were set; `None` if that is unknown."""
    ratios = [measurements[who] / known for who, known in row.known.items() if who in measurements]
    return median(ratios) if ratios else None


def _line(row: Row, measurements: dict[str, float], slowness: float) -> str:
    peers = {who: value for who, value in measurements.items() if who not in {FLOOR, OURS}}
    floor, ours = measurements.get(FLOOR), measurements.get(OURS)
    target = row.target if row.target is not None else floor
    here = None if target is None else target * slowness if row.scales else target
    beside = "; ".join(f"{who} {_formatted(value)}" for who, value in peers.items())
    aim = "the floor's" if row.target is None else f"≤ {_formatted(row.target)}"
    cells = (_formatted(floor), _formatted(ours), beside or "-", aim, _formatted(here), _reached(row, ours, here))
    return _cells((f"{_TITLES[row.group]}: {row.title}", row.unit, *cells))


_TITLES: dict[Group, str] = {
    "native": "native",
    "langchain": "LangChain",
    "llama_index": "LlamaIndex",
    "imports": "import",
}


def _values(row: Row, medians: Mapping[tuple[Group, str, str], float]) -> dict[str, float]:
    """Return the measurements of a row by role; those of variants have the variant with the role."""
    measurements: dict[str, float] = {}
    for (group, case, role), value in medians.items():
        base, _, variant = case.partition(", ")
        below = 1.0 if row.over is None else medians.get((group, row.over, role))
        if (group, base) == (row.group, row.case) and below is not None:
            measurements[f"{role} ({variant})" if variant else role] = value / below
    return measurements


def _reached(row: Row, ours: float | None, here: float | None) -> str:
    if ours is None or here is None:
        return "-"
    return "yes" if ours <= here + (_NOISE if row.target is None else 0) else "no"


def _formatted(value: float | None) -> str:
    if value is None:
        return "-"
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
