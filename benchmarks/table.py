"""Renders what became of the rows as a table in Markdown. Pure."""

import math
from collections.abc import Iterable, Sequence

from benchmarks.results import Outcome
from benchmarks.targets import FLOOR, OURS

_HEAD = ("case", "unit", "floor", "ours", "× floor", "others", "target", "reached")
_REACHED = {True: "yes", False: "**no**", None: "-"}


def render(outcomes: Sequence[Outcome]) -> str:
    """Return the table."""
    return "\n".join([_cells(_HEAD), _cells("---" for _ in _HEAD), *map(_line, outcomes)])


def formatted(value: float | None) -> str:
    """Return a value with three digits."""
    if value is None:
        return "-"
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def _line(outcome: Outcome) -> str:
    row, floor, ours = outcome.row, outcome.values.get(FLOOR), outcome.values.get(OURS)
    times = None if floor is None or ours is None else ours / floor
    others = [f"{who} {formatted(value)}" for who, value in outcome.values.items() if who not in {FLOOR, OURS}]
    limit, target = formatted(outcome.limit), f"≤ {row.target}"
    target = target if outcome.limit is None or target == f"≤ {outcome.limit:g}" else f"{target}: {limit}"
    cells = (formatted(floor), formatted(ours), formatted(times), "; ".join(others) or "-", target)
    return _cells((row.label, row.unit, *cells, _REACHED[outcome.reached]))


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
