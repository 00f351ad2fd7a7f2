"""`sync.py` is what `tools/sync_client.py` writes."""

import ast

from tools.sync_client import SYNC, sync_client


def without_format(module: str) -> str:
    """Return the code and the docstrings, without what ruff decides: lines, and the order of imported names."""
    tree = ast.parse(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            node.names.sort(key=lambda alias: alias.name)
    return ast.unparse(tree)


def test_the_sync_client_is_written_from_the_async_one() -> None:
    written, current = without_format(SYNC.read_text(encoding="utf-8")), without_format(sync_client())
    assert written == current, "run python -m tools.sync_client"
