"""Tests of what becomes of measurements: targets, the table and the JSON.

No test measures time.
"""

import json
import math
from importlib.util import find_spec

import pytest

from benchmarks.imports import STATEMENTS
from benchmarks.results import Measurements, Results, from_json, outcomes, to_json
from benchmarks.rows import PROGRAMS, ROWS, Row
from benchmarks.table import render
from benchmarks.targets import (
    BEST_PEER,
    FLOOR,
    NATIVE_FLOOR,
    OURS,
    THREADS,
    Absolute,
    Multiple,
    Target,
    Values,
    peers,
)


@pytest.mark.parametrize(
    ("target", "values", "limit", "text"),
    [
        (Multiple(1.6), {FLOOR: 10.0, "Ollama": 30.0}, 16.0, "1.6 × floor"),
        (Multiple(0.6, NATIVE_FLOOR), {FLOOR: 1.0, NATIVE_FLOOR: 10.0}, 6.0, "0.6 × native floor"),
        (Multiple(1, BEST_PEER), {FLOOR: 1.0, OURS: 2.0, THREADS: 3.0, "a": 5.0, "b": 4.0}, 4.0, "best peer"),
        (Multiple(1, tolerance=0.5), {FLOOR: 1.0}, 1.5, "floor"),
        (Multiple(1.6), {OURS: 10.0}, None, "1.6 × floor"),
        (Multiple(1, BEST_PEER), {OURS: 10.0}, None, "best peer"),
        (Absolute(0.3), {}, 0.3, "0.3"),
        (Absolute(12, {FLOOR: 8.0, "Ollama": 100.0}), {FLOOR: 4.0, "Ollama": 100.0}, 9.0, "12, scaled"),
        (Absolute(12, {FLOOR: 8.0}), {OURS: 4.0}, None, "12, scaled"),
    ],
)
def test_a_target_is_a_multiple_of_the_run_or_a_value(
    target: Target, values: Values, limit: float | None, text: str
) -> None:
    assert target.limit(values) == (limit if limit is None else pytest.approx(limit))
    assert str(target) == text


def test_every_program_of_a_row_exists_and_every_role_of_a_target() -> None:
    for row in ROWS:
        roles = {*STATEMENTS} if row.group == "imports" else {*PROGRAMS[row.group]}
        target = row.target
        needed = {target.of} - {BEST_PEER} if isinstance(target, Multiple) else {*target.there}
        assert needed <= roles, row.label
    for program in {name for programs in PROGRAMS.values() for name in programs.values()}:
        assert find_spec(f"benchmarks.programs.{program}") is not None


MEASUREMENTS: Measurements = {
    ("native", "stream", FLOOR): [10.0, 11.0, 900.0],
    ("native", "stream", OURS): [8.0],
    ("native", "stream", "official SDK"): [176.0],
    ("native", "embed, base64", "official SDK"): [50.0],
    ("native", "cancel", "official SDK"): [0.1, math.inf, 0.1],
}


def test_the_table_shows_multiples_and_the_target_in_the_units_of_the_row() -> None:
    row = Row("native", "stream", "stream", "µs", Multiple(0.8))
    line = "| native: stream | µs | 11.0 | 8.00 | 0.73 | official SDK 176 | ≤ 0.8 × floor: 8.80 | yes |"
    assert line in render(outcomes([row], MEASUREMENTS))
    slower = {**MEASUREMENTS, ("native", "stream", OURS): [9.0]}
    assert render(outcomes([row], slower)).endswith("| **no** |")


def test_what_was_not_measured_is_shown_and_what_happened_never() -> None:
    rows = [
        Row("native", "cancelled", "cancel", "ms", Absolute(0.3)),
        Row("native", "embed", "embed", "ms", Multiple(1)),
    ]
    table = render(outcomes(rows, MEASUREMENTS))
    assert "| native: cancelled | ms | - | - | - | official SDK never | ≤ 0.3 | - |" in table
    assert "| native: embed | ms | - | - | - | official SDK (base64) 50.0 | ≤ floor | - |" in table


def test_a_ratio_is_compared_with_the_floor() -> None:
    row = Row("native", "long", "long", "times", Multiple(1, tolerance=0.05), over="stream")
    measurements: Measurements = {
        ("native", "stream", FLOOR): [5.0],
        ("native", "long", FLOOR): [6.0],
        ("native", "stream", OURS): [10.0],
        ("native", "long", OURS): [13.0],
    }
    assert "| 1.20 | 1.30 | 1.08 | - | ≤ floor: 1.25 | **no** |" in render(outcomes([row], measurements))


def test_results_survive_json() -> None:
    results = Results("2026-11-22", 3, {"cpus": "2"}, {"Python": "3.11.7"}, MEASUREMENTS)
    text = to_json(results)
    assert from_json(text) == results
    assert '"floor": [10.0,11.0,900.0]' in text
    assert json.loads(text)["measurements"]["native"]["cancel"]["official SDK"] == [0.1, None, 0.1]


def test_peers_are_other_packages_and_the_best_is_first() -> None:
    assert list(peers({FLOOR: 1.0, OURS: 2.0, "before": 3.0, "a": 5.0, "b": 4.0})) == ["b", "a"]
