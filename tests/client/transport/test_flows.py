"""The form of all flows: they are generators."""

import ast
from collections.abc import Iterator
from pathlib import Path

import lmstudio_integrations

SOURCES = sorted(Path(lmstudio_integrations.__file__).parent.rglob("*.py"))


def flows() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield every function that returns a flow, with its file; those of protocols have no body."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.returns is not None and ast.unparse(node.body[-1]) != "...":
                returns = ast.unparse(node.returns).strip("'")
                if returns.startswith("Flow["):
                    yield f"{path.name}: {node.name}", node


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function, without those of the functions in it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.Lambda):
            yield child
            yield from own_nodes(child)


def test_every_function_that_returns_a_flow_is_a_generator() -> None:
    """So the arguments of all flows are checked at the same moment: when they are run."""
    found = dict(flows())
    assert len(found) > 50, "the functions were not found"
    assert [
        name
        for name, function in found.items()
        if not any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own_nodes(function))
    ] == []
