"""The size of the package: its statements, by folder and by file.

`python -m tests.structure.statements [ROOT]` counts the statements of the checkout at `ROOT`, of this one without it.
A statement is an `ast.stmt`, those inside of others included. Docstrings are not counted: neither those of modules,
classes and functions nor the strings below attributes. The last line says how many there are with them.
"""

import argparse
import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "lmstudio_integrations"
LARGEST = 20
"""How many files the table shows."""


def count(source: str) -> int:
    """Return the number of statements of a file."""
    return sum(not _is_docstring(node) for node in _statements(source))


def count_docstrings(source: str) -> int:
    """Return the number of docstrings of a file."""
    return sum(_is_docstring(node) for node in _statements(source))


def _statements(source: str) -> Iterator[ast.stmt]:
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt))


def _is_docstring(node: ast.stmt) -> bool:
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case _:
            return False


def read_files(root: Path) -> dict[str, str]:
    """Return the text of each file of the package, by its path in the checkout."""
    files = sorted((root / PACKAGE).rglob("*.py"))
    return {file.relative_to(root).as_posix(): file.read_text(encoding="utf-8") for file in files}


def sum_folders(files: Mapping[str, int]) -> Counter[str]:
    """Return the number of statements below each folder, those of its subfolders included."""
    folders: Counter[str] = Counter()
    for path, number in files.items():
        for folder in Path(path).parents[:-1]:
            folders[folder.as_posix()] += number
    return folders


def table(sources: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of the table: all folders, the largest files, the sum with docstrings."""
    files = {path: count(source) for path, source in sources.items()}
    for path, number in sorted(sum_folders(files).items()):
        yield f"{number:7,}  {path}/"
    yield f"the largest of {len(files)} files:"
    for path, number in Counter(files).most_common(LARGEST):
        yield f"{number:7,}  {path}"
    docstrings = sum(map(count_docstrings, sources.values()))
    yield f"with {docstrings:,} docstrings: {sum(files.values()) + docstrings:,}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of a checkout."""
    parser = argparse.ArgumentParser(description="count the statements of the package")
    parser.add_argument("root", type=Path, nargs="?", default=ROOT, help="the checkout to read")
    for line in table(read_files(parser.parse_args(arguments).root)):
        print(line)


if __name__ == "__main__":
    main()
