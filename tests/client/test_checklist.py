"""The checklist of the documentation names tests that exist, and every row has its tick."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = [
    line
    for line in (TESTS.parent / "docs" / "checklist.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| ✓ | promise") and not line.startswith("| ✓ | point")
]
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def functions_of(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_row_has_its_tick_and_a_test() -> None:
    assert len(ROWS) > 40
    for row in ROWS:
        assert row.startswith("| ✓ |"), row
        assert NAMED.search(row), row


def test_every_test_that_is_named_exists() -> None:
    named = {found for row in ROWS for found in NAMED.findall(row)}
    functions = {file: functions_of(file) for file, _ in named}
    assert {(file, name) for file, name in named if name not in functions[file]} == set()
