"""From figures to a table in Markdown. Pure."""

import math
from collections.abc import Iterable, Mapping
from statistics import median
from typing import TypeAlias

from tests.benchmarks.rows import FLOOR, OURS, Group, Row

Figures: TypeAlias = dict[tuple[Group, str, str], list[float]]
"""All that was measured, by group, case and role."""

_HEAD = ("case", "unit", "floor", "ours", "peers", "target", "target here", "reached")

_NOISE = 0.05
"""How far a ratio may be above the floor's and still count as no higher."""


def render(rows: list[Row], figures: Mapping[tuple[Group, str, str], list[float]], rounds: int) -> str:
    """Return the table, and above it how much slower this machine is than that of the targets."""
    medians = {key: median(values) for key, values in figures.items() if values}
    told = [_figures(row, medians) for row in rows]
    slowness = [_slowness(row, each) for row, each in zip(rows, told, strict=True)]
    overall = median([each for each in slowness if each is not None] or [1.0])
    lines = [_line(row, each, slow or overall) for row, each, slow in zip(rows, told, slowness, strict=True)]
    opening = (
        f"Medians of {rounds} rounds. This machine took {overall:.2f} times the CPU of that of the targets. "
        "`target here` is the target times what the floor and the peers of the same row took more, or times that "
        "where none of them is known."
    )
    return "\n".join([opening, "", _cells(_HEAD), _cells("---" for _ in _HEAD), *lines])


def _slowness(row: Row, figures: Mapping[str, float]) -> float | None:
    """Return how much more CPU others needed for this than where the targets were set; `None` if that is unknown."""
    ratios = [figures[who] / known for who, known in row.known.items() if who in figures]
    return median(ratios) if ratios else None


def _line(row: Row, figures: dict[str, float], slowness: float) -> str:
    peers = {who: figure for who, figure in figures.items() if who not in {FLOOR, OURS}}
    floor, ours = figures.get(FLOOR), figures.get(OURS)
    target = row.target if row.target is not None else floor
    here = None if target is None else target * slowness if row.scales else target
    beside = "; ".join(f"{who} {_figure(figure)}" for who, figure in peers.items())
    aim = "the floor's" if row.target is None else f"≤ {_figure(row.target)}"
    cells = (_figure(floor), _figure(ours), beside or "-", aim, _figure(here), _reached(row, ours, here))
    return _cells((f"{_TITLES[row.group]}: {row.title}", row.unit, *cells))


_TITLES: dict[Group, str] = {
    "native": "native",
    "langchain": "LangChain",
    "llama_index": "LlamaIndex",
    "imports": "import",
}


def _figures(row: Row, medians: Mapping[tuple[Group, str, str], float]) -> dict[str, float]:
    """Return the figures of a row by role; those of variants have the variant with the role."""
    figures: dict[str, float] = {}
    for (group, case, role), figure in medians.items():
        base, _, variant = case.partition(", ")
        below = 1.0 if row.over is None else medians.get((group, row.over, role))
        if (group, base) == (row.group, row.case) and below is not None:
            figures[f"{role} ({variant})" if variant else role] = figure / below
    return figures


def _reached(row: Row, ours: float | None, here: float | None) -> str:
    if ours is None or here is None:
        return "-"
    return "yes" if ours <= here + (_NOISE if row.target is None else 0) else "no"


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
