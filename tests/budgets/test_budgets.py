"""No call or token costs more work than its budget. Work is counted, not timed, so no quiet machine is needed."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.budgets.table import PYTHON, Counts, load, problem, render

SECONDS = 300
BUDGETS = load()

pytestmark = pytest.mark.timeout(SECONDS)


@pytest.fixture(scope="module")
def counts() -> Counts:
    """What is counted now, in a process of its own: other tests import more, which changes what runs."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.budgets"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert not ran.returncode, ran.stderr
    return tomllib.loads(ran.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != PYTHON, reason="the budgets are those of Python 3.11")
@pytest.mark.parametrize(("measure", "case"), [(measure, case) for measure in BUDGETS for case in BUDGETS[measure]])
def test_a_count_is_within_its_budget(counts: Counts, measure: str, case: str) -> None:
    assert problem(f"{measure} of {case}", counts[measure][case], BUDGETS[measure][case]) is None


@pytest.mark.skipif(sys.version_info[:2] != PYTHON, reason="the budgets are those of Python 3.11")
def test_every_count_has_a_budget(counts: Counts) -> None:
    assert {measure: set(values) for measure, values in counts.items()} == {
        measure: set(values) for measure, values in BUDGETS.items()
    }


@pytest.mark.parametrize(("count", "is_fine"), [(84, False), (87, True), (100, True), (114, True), (116, False)])
def test_a_count_may_be_a_little_above_or_below_its_budget(count: float, *, is_fine: bool) -> None:
    assert (problem("calls", count, 100) is None) == is_fine


def test_the_budgets_are_rendered_as_they_are_read() -> None:
    assert tomllib.loads(render(BUDGETS)) == BUDGETS
