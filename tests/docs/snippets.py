"""The fenced code of the pages and of the docstrings, with the place where a reader finds it."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lmstudio_integrations"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "cookbook/*.md", "docs/**/*.md")
    for path in ROOT.glob(pattern)
)

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)[^\n`]*\n(?P<code>.*?)^(?P=indent)```\s*?$", re.MULTILINE | re.DOTALL
)
_INCLUDED = "--8<--"


@dataclass(frozen=True, slots=True)
class Snippet:
    """Fenced code.

    Attributes:
        source: The file, from the root of the repository.
        line: The line of the file with the first line of the code.
        language: What follows the fence.
        code: The text, without the indentation of the fence.
    """

    source: str
    line: int
    language: str
    code: str

    @property
    def included(self) -> bool:
        """Whether the code is that of another file."""
        return _INCLUDED in self.code


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def in_text(text: str, source: str, first_line: int = 1) -> Iterator[Snippet]:
    """Yield the fenced code of a text that begins at a line of a file."""
    for fence in _FENCE.finditer(text):
        line = first_line + text.count("\n", 0, fence.start("code"))
        yield Snippet(source, line, fence["language"], dedent(fence["code"]))


def on_page(page: str, language: str = "python") -> list[Snippet]:
    """Return the code on a page in one language, without what it includes from other files."""
    return [each for each in in_text(read(page), page) if each.language == language and not each.included]


def blocks(page: str, language: str = "python") -> list[str]:
    """Return the same as text."""
    return [each.code for each in on_page(page, language)]


@cache
def docstrings(path: Path) -> list[tuple[str, int]]:
    """Return the docstrings of a module and of everything in it, each with its first line."""
    nodes = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    texts = [(ast.get_docstring(node, clean=False), node) for node in nodes]
    return [(text, node.body[0].lineno) for text, node in texts if text is not None]


def in_docstrings(path: Path) -> Iterator[list[Snippet]]:
    """Yield the Python snippets of each docstring of a module that has some."""
    source = path.relative_to(ROOT).as_posix()
    for text, line in docstrings(path):
        found = [each for each in in_text(text, source, line) if each.language == "python"]
        if found:
            yield found
