"""What belongs to each leaf of the package: `python -m tools.leaves [LEAF ...]` lists it.

`[tool.leaves]` of `pyproject.toml` names the leaves, each with the beginnings of its modules' names. With them go the
tests and tools that import them, themselves or through a helper; tests that use a leaf by its door are marked (`leaf`).
"""

import ast
import sys
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

from tools import ROOT
from tools.stub import PACKAGES

PACKAGE = "lmstudio_integrations"


@cache
def leaves() -> Mapping[str, tuple[str, ...]]:
    """Return the leaves, each with the beginnings of its modules' names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {name: tuple(f"{PACKAGE}.{each}" for each in names) for name, names in project["tool"]["leaves"].items()}


def module_name(path: Path) -> str:
    """Return the name of a module from its path in the clone."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_of(module: str, names: Iterable[str]) -> bool:
    """Whether a module is one of these, or in one of them."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


def modules_of(leaf: str) -> list[Path]:
    """Return the modules of a leaf."""
    found = (ROOT / PACKAGE).rglob("*.py")
    return sorted(path for path in found if is_of(module_name(path), leaves()[leaf]))


def find_tests(names: Iterable[str]) -> list[Path]:
    """Return the tests and tools that import one of these modules, themselves or through a helper."""
    tests = sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / "tools").rglob("*.py")])
    imported = {module_name(path): _imports_of(path) for path in tests}
    needing = {module for module, found in imported.items() if any(is_of(each, names) for each in found)}
    while True:
        more = {module for module, found in imported.items() if not found.isdisjoint(needing)} - needing
        if not more:
            return [path for path in tests if module_name(path) in needing]
        needing |= more


@cache
def _public_names(package: str) -> Mapping[str, str]:
    """Return the modules of the names that a package imports on first use; none for other modules."""
    imported = import_module(package) if package in (PACKAGE, *PACKAGES) else None
    modules: Mapping[str, str] = getattr(imported, "_MODULE_OF" if package == PACKAGE else "_MODULES", {})
    return {name: module.removeprefix(".") for name, module in modules.items()}


@cache
def _imports_of(path: Path) -> frozenset[str]:
    """Return the modules that a test imports, and those of the public names that it uses."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=aliases):
                found |= {alias.name for alias in aliases}
            case ast.ImportFrom(module=str(module), names=aliases):
                public = _public_names(module)
                found |= {module, *(f"{module}.{public.get(alias.name, alias.name)}" for alias in aliases)}
            case ast.Attribute(value=ast.Name(id="lms"), attr=name):
                found.add(f"{PACKAGE}.{_public_names(PACKAGE).get(name, name)}")
            case _:
                pass
    return frozenset(found)


def main() -> None:
    """Print what belongs to the named leaves, or to all."""
    for leaf in sys.argv[1:] or leaves():
        print(leaf)
        for path in (*modules_of(leaf), *find_tests(leaves()[leaf])):
            print(f"  {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
