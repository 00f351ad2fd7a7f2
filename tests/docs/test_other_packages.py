"""The page on other people's packages says what `tests/neighbours` runs, at the versions of the locks."""

import json

from tools import ROOT
from tools.neighbours import GROUPS, PAGE, PASSED, page_text, programs, versions

AGAIN = "run python -m tools.neighbours run --record, then python -m tools.neighbours page"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_text(), AGAIN


def test_each_program_has_passed_with_the_version_of_the_lock() -> None:
    noted = json.loads(PASSED.read_text(encoding="utf-8"))
    locked = {each.key: versions(each.file.parent)[each.name] for each in programs()}
    assert {key: row["version"] for key, row in noted.items()} == locked, AGAIN
    assert {each.group for each in programs()} == {*GROUPS, "peers"}


def test_each_package_of_a_program_is_installed() -> None:
    assert [
        (each.key, name) for each in programs() for name in each.packages if name not in versions(each.file.parent)
    ] == []


def test_the_readme_counts_the_packages() -> None:
    packages = {each.name for each in programs() if each.group in GROUPS}
    assert f"| **{len(packages)}** |" in (ROOT / "README.md").read_text(encoding="utf-8")
