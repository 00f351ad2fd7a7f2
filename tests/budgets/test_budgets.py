"""No call or token costs more work than its budget. Work is counted, not timed, so no quiet machine is needed."""

import json
import subprocess
import sys

import pytest

from tests.budgets.measures import BUDGETS
from tests.docs.snippets import ROOT

TOLERANCE = 1.15
"""How many times the budget a count may be."""

SECONDS = 300


@pytest.mark.exhaustive
@pytest.mark.timeout(SECONDS)
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="other versions call and inline other functions")
def test_no_count_is_above_its_budget() -> None:
    # In a process of its own: other tests import more, which changes what runs.
    command = [sys.executable, "-m", "tests.budgets"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=SECONDS)
    counts, budgets = json.loads(ran.stdout), json.loads(BUDGETS.read_text(encoding="utf-8"))
    assert {measure: set(cases) for measure, cases in counts.items()} == {
        measure: set(cases) for measure, cases in budgets.items()
    }
    above = {
        f"{measure} of {case}": (count, budgets[measure][case])
        for measure, cases in counts.items()
        for case, count in cases.items()
        if count > TOLERANCE * budgets[measure][case]
    }
    assert above == {}
