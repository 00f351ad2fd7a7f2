"""`sync.py` is what `tools/sync_client.py` writes."""

import ast
from pathlib import Path

import pytest

from tools.sync_client import SOURCES, sync_client


def without_format(module: str) -> str:
    """Return the code and the docstrings, without what ruff decides: lines, and the order of imported names."""
    tree = ast.parse(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            node.names.sort(key=lambda alias: alias.name)
    return ast.unparse(tree)


@pytest.mark.leaf
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.parent.name)
def test_the_sync_client_is_written_from_the_async_one(source: Path) -> None:
    current = source.with_name("sync.py").read_text(encoding="utf-8")
    assert without_format(current) == without_format(sync_client(source)), "run python -m tools.sync_client"
