"""The page on faults has the faults of today."""

from tools.faults_page import PAGE, render_page


def test_the_table_is_that_of_the_package() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == render_page(page), "run python -m tools.faults_page"
