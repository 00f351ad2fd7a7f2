"""The page on reliability says what the table says."""

import pytest

from tests.faults.fault_table import TABLE
from tools.reliability import PAGE, render_page


@pytest.mark.leaf("calls_in_text", "decisions", "devices", "hosts", "planning", "required_tool_fallback", "tool_loop")
def test_the_page_is_generated_from_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == render_page(page), "run python -m tools.reliability"


def test_no_row_is_written_twice() -> None:
    rows = [(fault.phase, fault.name) for fault in TABLE]
    assert len(rows) == len(set(rows)) >= 45
