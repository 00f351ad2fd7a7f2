"""The diagrams: each SVG is drawn from its source, and the folders are drawn as they import each other."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.test_package import NAME, PACKAGE
from tools.diagrams import DIAGRAMS, hash_line, sources

NODE = re.compile(r'(\w+)\["([\w./, ]+?)<br/>')
EDGE = re.compile(r"^ +(\w+)(?:\[.*\])? --> (.*)$", re.MULTILINE)
NOT_DRAWN = {"_support", "data"}
"""Everything may import the helpers of the one; only other programs read the other."""

BELOW_ENGINES = {f"emulator/{module}" for module in ("errors", "regular_files", "weights")}
"""Modules of the emulator that its engines use. No box of their own: they only import what is below the emulator."""


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.name)
def test_the_svg_was_drawn_from_the_source(source: Path) -> None:
    svg = source.with_suffix(".svg").read_text(encoding="utf-8")
    assert svg.endswith(hash_line(source)), "run python -m tools.diagrams"


def test_every_svg_has_a_source() -> None:
    assert {path.stem for path in DIAGRAMS.glob("*.svg")} == {path.stem for path in sources()} >= {"folders", "message"}


def box_of(module: str, boxes: Iterable[str]) -> str:
    """Return the part of the package that a module belongs to: a box if there is one, else the folder at the top."""
    path = "/".join(module.split(".")[1:])
    if any(f"{path}/".startswith(f"{each}/") for each in BELOW_ENGINES):
        return "emulator/engines"
    return max((box for box in boxes if f"{path}/".startswith(f"{box}/")), key=len, default=path.partition("/")[0])


def imported_modules(path: Path) -> Iterator[str]:
    """Yield every module of the package that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(f"{NAME}."))
        elif isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{NAME}."):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(boxes: Iterable[str]) -> dict[str, set[str]]:
    """Return what each part of the package imports of the others."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        module = ".".join([NAME, *path.relative_to(PACKAGE).with_suffix("").parts])
        if path != PACKAGE / "__init__.py" and (box := box_of(module, boxes)) not in NOT_DRAWN:
            inner = {box_of(name, boxes) for name in imported_modules(path)}
            found.setdefault(box, set()).update(inner - {box} - NOT_DRAWN)
    return found


def drawn() -> dict[str, set[str]]:
    """Return the arrows of the diagram of the folders, by the names of the folders."""
    text = (DIAGRAMS / "folders.mmd").read_text(encoding="utf-8")
    names = {
        node: [part.strip(" /").removesuffix(".py") for part in label.split(",")] for node, label in NODE.findall(text)
    }
    arrows: dict[str, set[str]] = {part: set() for parts in names.values() for part in parts}
    for start, ends in EDGE.findall(text):
        for part in names[start]:
            arrows[part] |= {name for end in re.split(r" & ", ends) for name in names[end.strip()]}
    return arrows


def reached(arrows: dict[str, set[str]], start: str) -> set[str]:
    """Return everything below a folder."""
    return arrows[start].union(*(reached(arrows, end) for end in arrows[start]))


@pytest.mark.slow
def test_every_arrow_is_an_import_and_every_import_leads_along_arrows() -> None:
    arrows = drawn()
    real = imports(arrows)
    assert arrows.keys() == real.keys()
    assert {(start, end) for start in arrows for end in arrows[start] - real[start]} == set()
    assert {(start, end) for start in real for end in real[start] - reached(arrows, start)} == set()
