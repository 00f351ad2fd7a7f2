"""Requirements that tests prove: a decorator for tests, and a check of the tables of requirements against the tests.

The tables are `requirements_client.py` (ids `C-…`) and `requirements_server.py` (ids `S-…`). The tests are read, not
imported, so that a table can be checked without running anything.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

Test = TypeVar("Test", bound=Callable[..., object])

TESTS = Path(__file__).parent


class Requirement(NamedTuple):
    """A requirement: its section of docs/protocol.md, and one sentence."""

    section: str
    sentence: str


def proves(*ids: str) -> Callable[[Test], Test]:
    """Name the requirements that a test proves."""
    assert ids, "name at least one requirement"

    def unchanged(test: Test) -> Test:
        return test

    return unchanged


@cache
def proofs(root: Path = TESTS) -> dict[str, list[str]]:
    """Return the tests below a folder by the id of each requirement that they name."""
    found: dict[str, list[str]] = {}
    for path in sorted(root.rglob("test_*.py")):
        for test, ids in _named_in(ast.parse(path.read_text(encoding="utf-8"))):
            for name in ids:
                found.setdefault(name, []).append(f"{path.relative_to(root)}::{test}")
    return found


def unproved(table: Mapping[str, Requirement]) -> list[str]:
    """Return the ids that no test names."""
    return sorted(table.keys() - proofs().keys())


def unknown(table: Mapping[str, Requirement], prefix: str) -> list[str]:
    """Return the ids with this prefix that tests name and the table does not have."""
    return sorted({name for name in proofs() if name.startswith(prefix)} - table.keys())


def _named_in(module: ast.Module) -> Iterator[tuple[str, list[str]]]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            for decorator in node.decorator_list:
                if (
                    isinstance(decorator, ast.Call)
                    and isinstance(decorator.func, ast.Name)
                    and decorator.func.id == proves.__name__
                ):
                    yield node.name, [str(ast.literal_eval(argument)) for argument in decorator.args]
