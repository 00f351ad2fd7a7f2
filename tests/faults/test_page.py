"""The page on reliability says what the table says."""

from tests.faults.fault_table import TABLE
from tests.faults.page import PAGE, written


def test_the_page_is_generated_from_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "run python -m tests.faults.page"


def test_no_row_is_written_twice() -> None:
    rows = [(fault.phase, fault.name) for fault in TABLE]
    assert len(rows) == len(set(rows)) >= 45
