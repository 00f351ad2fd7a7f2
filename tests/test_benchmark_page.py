"""Tests of the page on speed: it is made of the kept results, and every missed target is explained."""

from benchmarks.imports import STATEMENTS
from benchmarks.page import CHART, PAGE, RESULTS, digest_line, incomplete, missed, with_parts
from benchmarks.results import Results, from_json, outcomes
from benchmarks.rows import PROGRAMS, ROWS, cases
from benchmarks.targets import OURS


def kept() -> tuple[str, Results]:
    """Return the results that the page was made of, as JSON and read."""
    text = RESULTS.read_text(encoding="utf-8")
    return text, from_json(text)


def test_the_page_and_its_chart_are_made_of_the_kept_results() -> None:
    text, results = kept()
    page = PAGE.read_text(encoding="utf-8")
    assert [f"<!-- end {part} -->" in page for part in ("summary", "results", "missed")] == [True] * 3
    assert with_parts(page, results) == page, "run python -m benchmarks.page"
    assert CHART.read_text(encoding="utf-8").endswith(digest_line(text)), "run python -m benchmarks.page"


def test_the_kept_results_have_every_row_and_every_package() -> None:
    _, results = kept()
    found = outcomes(ROWS, results.measurements)
    assert incomplete(found) == []
    for outcome in found:
        rounds = (results.measurements[outcome.row.group, case, OURS] for case in cases(outcome.row))
        assert {len(each) for each in rounds} == {results.rounds}
    measured = {(group, role) for group, _, role in results.measurements}
    assert measured >= {(group, role) for group, programs in PROGRAMS.items() for role in programs}
    assert measured >= {("imports", role) for role in STATEMENTS}


def test_every_missed_target_is_explained() -> None:
    _, results = kept()
    section = PAGE.read_text(encoding="utf-8").partition("## Missed targets\n")[2].partition("\n## ")[0]
    explained = " ".join(section.partition("<!-- end missed -->")[2].split())
    unexplained = [label for label in missed(outcomes(ROWS, results.measurements)) if label not in explained]
    assert unexplained == []


def test_a_page_without_measurements_lists_what_is_missing() -> None:
    assert incomplete(outcomes(ROWS, {})) == [row.label for row in ROWS]
