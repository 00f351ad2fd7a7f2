"""Renders the measurements of the benchmark `engine` as a table in Markdown. Pure."""

from collections.abc import Mapping
from statistics import median
from typing import Final, TypeAlias

from benchmarks.engine_cases import CASES, Measurement, Unit

DIRECT: Final = "direct"
EMULATOR: Final = "emulator"

Rounds: TypeAlias = dict[str, list[dict[str, Measurement]]]
"""The measurements of both backends in each round, by the names of the cases."""

TARGET = 0.95

_TITLES: Mapping[Unit, str] = {"tokens/s": "tokens", "ms": "first token", "texts/s": "embeddings"}


def render(rounds: Rounds) -> str:
    """Return the table."""
    lines = ["| case | unit | directly | emulator | ratio | reached |", "|---|---|---|---|---|---|"]
    lines += [_line(case, unit, measured) for case, measured in rounds.items() if measured for unit in _units(measured)]
    count = max(map(len, rounds.values()), default=0)
    return f"Medians of {count} rounds. The target of each ratio is at least {TARGET}.\n\n" + "\n".join(lines)


def ratio(measured: list[dict[str, Measurement]], unit: Unit) -> float:
    """Return the median of the ratios of the rounds: 1 is as fast as the engine itself, less is slower."""
    ratios = [each[EMULATOR][unit] / each[DIRECT][unit] for each in measured]
    return median(1 / each if unit == "ms" else each for each in ratios)


def _units(measured: list[dict[str, Measurement]]) -> list[Unit]:
    return list(measured[0][DIRECT])


def _line(case: str, unit: Unit, measured: list[dict[str, Measurement]]) -> str:
    direct, emulator = (median(each[backend][unit] for each in measured) for backend in (DIRECT, EMULATOR))
    share = ratio(measured, unit)
    reached = "yes" if share >= TARGET else "no"
    return (
        f"| {_TITLES[unit]}: {CASES[case].title} | {unit} | {direct:.1f} | {emulator:.1f} | {share:.2f} | {reached} |"
    )
