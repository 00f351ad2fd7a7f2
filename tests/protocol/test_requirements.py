"""Every requirement of the protocol is proved by a test, and every proof names a requirement."""

import re
from pathlib import Path

from tests.protocol.requirements import CLIENT, SERVER

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "protocol.md"


def test_the_tests_prove_exactly_what_is_required() -> None:
    marks = re.compile(r"@pytest\.mark\.requirement\(([^)]*)\)")
    texts = (path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    proved = {name for text in texts for mark in marks.findall(text) for name in re.findall(r'"([A-Z-]+)"', mark)}
    assert proved == CLIENT.keys() | SERVER.keys()


def test_the_sections_of_the_requirements_are_on_the_page() -> None:
    anchors = set(re.findall(r"\{ ?(#[a-z0-9-]+) ?\}", PAGE.read_text(encoding="utf-8")))
    for requirement in [*CLIENT.values(), *SERVER.values()]:
        assert set(requirement.sections.split(", ")) <= anchors
