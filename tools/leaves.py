"""What belongs to each leaf of the package: `python -m tools.leaves [LEAF ...]` lists it.

`[tool.leaves]` of `pyproject.toml` names the leaves, each with the beginnings of its modules' names. With a leaf go the
tests and tools that cannot be imported without it, and the tests that are marked with its name. What cannot be imported
only because a helper of others cannot is indirect: it is not the leaf's, so the helper has to do without the leaf.
"""

import ast
import sys
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tools import ROOT
from tools.stub import PACKAGES

PACKAGE = "lmstudio_integrations"

_LATER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.If)
"""Nodes whose bodies need not run when their module is imported."""


class Source(NamedTuple):
    """A module of the package, the tests or the tools, and what it names.

    Attributes:
        path: Its file.
        name: Its name.
        imports: The modules that it needs when it is imported.
        later: The modules that it may need later, each with the line.
        marks: The leaves that its tests are marked with, each with the line.
        marked: The leaves that it is marked with as a whole.
    """

    path: Path
    name: str
    imports: frozenset[str]
    later: tuple[tuple[str, int], ...]
    marks: tuple[tuple[str, int], ...]
    marked: frozenset[str]

    @property
    def is_of_package(self) -> bool:
        """Whether it is in the package."""
        return is_of(self.name, [PACKAGE])


@cache
def leaves() -> Mapping[str, tuple[str, ...]]:
    """Return the leaves, each with the beginnings of its modules' names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {name: tuple(f"{PACKAGE}.{each}" for each in names) for name, names in project["tool"]["leaves"].items()}


def has_leaf(leaf: str) -> bool:
    """Whether a leaf is in this copy of the package."""
    return leaf in leaves() and find_spec(leaves()[leaf][0]) is not None


def module_name(path: Path) -> str:
    """Return the name of a module from its path in the clone."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_of(module: str, names: Iterable[str]) -> bool:
    """Whether a module is one of these, or in one of them."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


def modules_of(leaf: str) -> list[Path]:
    """Return the modules of a leaf."""
    return [each.path for each in sources() if is_of(each.name, leaves()[leaf])]


def find_tests(*names: str) -> list[Path]:
    """Return the tests and tools that cannot be imported without some leaves, or are marked with one as a whole."""
    needing = _needing(names)
    found = (each for each in sources() if each in needing or each.marked & {*names})
    return [each.path for each in found if not each.is_of_package]


def find_indirect(leaf: str) -> list[Path]:
    """Return those of them that are not the leaf's: they need it through a helper, or are the helper that is shared."""
    needing = _needing([leaf])
    of_package = {each.name for each in needing if each.is_of_package}
    helped = [each for each in needing if not each.is_of_package and not each.imports & of_package]
    users = {each: {other for other in needing if _uses(other, each)} for each in helped if leaf not in each.marked}
    indirect = {each for each, found in users.items() if not found}
    while more := {each for each, found in users.items() if found & indirect} - indirect:
        indirect |= more
    return sorted(each.path for each in indirect)


def find_places(leaf: str) -> list[str]:
    """Return the lines of other tests and tools that name what goes: marks of tests, and imports that may wait."""
    gone = {*modules_of(leaf), *find_tests(leaf)}
    modules = {each.name for each in sources() if each.path in gone}
    found = [
        (each.path, line)
        for each in sources()
        if not each.is_of_package and each.path not in gone
        for line in {
            *(line for name, line in each.marks if name == leaf),
            *(line for name, line in each.later if is_of(name, modules)),
        }
    ]
    return [f"{path.relative_to(ROOT)}:{line}" for path, line in sorted(found)]


def _needing(names: Collection[str]) -> set[Source]:
    """Return the modules that cannot be imported without some leaves."""
    beginnings = [each for name in names for each in leaves()[name]]
    needing = more = {each for each in sources() if is_of(each.name, beginnings)}
    while more:
        found = {each.name for each in more}
        more = {each for each in sources() if not each.imports.isdisjoint(found)} - needing
        needing = needing | more
    return needing


def _uses(source: Source, helper: Source) -> bool:
    """Whether a module names a helper. A folder that is a program runs all that is in it."""
    program = helper.name.removesuffix(".__main__")
    is_run = program != helper.name and is_of(source.name, [program]) and source != helper
    return is_run or helper.name in {*source.imports, *(name for name, _ in source.later)}


@cache
def sources() -> tuple[Source, ...]:
    """Return all modules of the package, the tests and the tools."""
    paths = (path for folder in (PACKAGE, "tests", "tools") for path in sorted((ROOT / folder).rglob("*.py")))
    return tuple(map(_read, paths))


def _read(path: Path) -> Source:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    first = {id(node) for node in _at_import(tree)}
    imports, later, marks = set[str](), list[tuple[str, int]](), list[tuple[str, int]]()
    for node in ast.walk(tree):
        if found := _modules_in(node):
            if id(node) in first:
                imports |= found
            else:
                later += [(name, node.lineno) for name in found]  # type: ignore[attr-defined]
        if found := _marks_in(node):
            marks += [(name, node.lineno) for name in found]  # type: ignore[attr-defined]
    if path.name.startswith("test_"):
        imports |= {module_name(folder / "conftest.py") for folder in path.parents if (folder / "conftest.py").exists()}
    assigned = [each for each in tree.body if isinstance(each, ast.Assign)]
    of_all = [each for each in assigned if ast.unparse(each.targets[0]) == "pytestmark"]
    marked = {name for each in of_all for node in ast.walk(each) for name in _marks_in(node)}
    return Source(path, module_name(path), frozenset(imports), tuple(later), tuple(marks), frozenset(marked))


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs when a module is imported: no bodies of functions, and nothing under a condition."""
    yield node
    for name, value in ast.iter_fields(node):
        if not (isinstance(node, _LATER) and name in {"body", "orelse"}):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _at_import(child)


def _modules_in(node: ast.AST) -> set[str]:
    """Return the modules that a node names, and those of public names."""
    match node:
        case ast.Import(names=aliases):
            return {alias.name for alias in aliases}
        case ast.ImportFrom(module=str(module), names=aliases):
            public = _public_names(module)
            return {module, *(f"{module}.{public.get(alias.name, alias.name)}" for alias in aliases)}
        case ast.Attribute(value=ast.Name(id="lms"), attr=name):
            return {f"{PACKAGE}.{_public_names(PACKAGE).get(name, name)}"}
        case _:
            return set()


def _marks_in(node: ast.AST) -> set[str]:
    """Return the leaves that a mark names."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="mark"), attr="leaf"), args=names):
            return {ast.literal_eval(each) for each in names}
        case _:
            return set()


@cache
def _public_names(package: str) -> Mapping[str, str]:
    """Return the modules of the names that a package imports on first use; none for other modules."""
    imported = import_module(package) if package in (PACKAGE, *PACKAGES) else None
    modules: Mapping[str, str] = getattr(imported, "_MODULE_OF" if package == PACKAGE else "_MODULES", {})
    return {name: module.removeprefix(".") for name, module in modules.items()}


def main() -> None:
    """Print what belongs to the named leaves, or to all."""
    if unknown := [name for name in sys.argv[1:] if name not in leaves()]:
        sys.exit(f"there is no leaf {', '.join(unknown)}; there are {', '.join(leaves())}")
    for leaf in sys.argv[1:] or leaves():
        indirect = find_indirect(leaf)
        files = [*modules_of(leaf), *(path for path in find_tests(leaf) if path not in indirect)]
        places = find_places(leaf)
        print(f"{leaf}: {len(files)} files, {len(places)} lines in others, {len(indirect)} indirect")
        for each in (*(path.relative_to(ROOT) for path in files), *places):
            print(f"  {each}")
        for path in indirect:
            print(f"  indirect: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
