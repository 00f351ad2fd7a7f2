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
    slowness = _slowness(rows, medians)
    lines = [_line(row, medians, slowness) for row in rows]
    opening = (
        f"Medians of {rounds} rounds. This machine took {slowness:.2f} times the CPU of that of the targets, "
        "by the median over floors and peers; `target here` is the target times that."
    )
    return "\n".join([opening, "", _cells(_HEAD), _cells("---" for _ in _HEAD), *lines])


def _slowness(rows: list[Row], medians: Mapping[tuple[Group, str, str], float]) -> float:
    ratios = [
        medians[row.group, row.case, role] / known
        for row in rows
        for role, known in row.known.items()
        if row.scales and (row.group, row.case, role) in medians
    ]
    return median(ratios) if ratios else 1.0


def _line(row: Row, medians: Mapping[tuple[Group, str, str], float], slowness: float) -> str:
    figures = _figures(row, medians)
    floor, ours = figures.pop(FLOOR, None), figures.pop(OURS, None)
    target = row.target if row.target is not None else floor
    here = None if target is None else target * slowness if row.scales else target
    peers = "; ".join(f"{role} {_figure(figure)}" for role, figure in figures.items())
    aim = "the floor's" if row.target is None else f"≤ {_figure(row.target)}"
    cells = (_figure(floor), _figure(ours), peers or "-", aim, _figure(here), _reached(row, ours, here))
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
        if (group, base) == (row.group, row.case):
            below = 1.0 if row.over is None else medians[group, row.over, role]
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
