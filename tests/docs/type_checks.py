"""Type-checks snippets as modules, with one run of each checker, and reports errors where a reader finds the code.

The snippets of a page are one module. Each is a function inside the one before, so it sees the names of those before
and may bind them anew, with other types.
"""

import ast
import inspect
import json
import os
import re
import subprocess
import symtable
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple

from tests.docs.snippets import ROOT, Snippet

CACHE = ROOT / ".mypy_cache"
_PLUGIN = """\
[mypy]
strict = True
follow_imports = silent
plugins = pydantic.mypy
[pydantic-mypy]
init_typed = True
init_forbid_extra = True
"""
_MYPY_LINE = re.compile(r"(?P<path>.+?):(?P<line>\d+): error: (?P<text>.*)")


class Place(NamedTuple):
    """A line of a file, from the root of the repository."""

    source: str
    line: int


class Finding(NamedTuple):
    """An error of a checker."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place.source}:{self.place.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class Module:
    """Snippets as one module.

    Attributes:
        text: The source.
        places: Where each line is from.
    """

    text: str
    places: Sequence[Place]


def module_of(snippets: Sequence[Snippet]) -> Module:
    """Join snippets that build on each other."""
    lines: list[str] = []
    places: list[Place] = []
    depth, bound = 0, set[str]()
    for snippet in snippets:
        statements = ast.parse("\n" * (snippet.line - 1) + snippet.code, snippet.source).body
        if (lines or _awaits(snippet.code)) and not _binds_what_it_read(statements, bound):
            lines.append(f"{' ' * depth}async def then() -> None:")
            places.append(Place(snippet.source, snippet.line))
            depth += 1
        code = indent(snippet.code, " " * depth).splitlines()
        lines += code
        places += [Place(snippet.source, snippet.line + number) for number in range(len(code))]
        bound |= _names(statements)[1]
    return Module("\n".join([*lines, ""]), places)


def _awaits(code: str) -> bool:
    """Whether code awaits outside of its functions, as the guide of the async client does."""
    flags = compile(code, "snippet", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT).co_flags
    return bool(flags & inspect.CO_COROUTINE)


def _binds_what_it_read(statements: list[ast.stmt], earlier: set[str]) -> bool:
    """Whether code reads a name of an earlier snippet and then binds it, which a function could not do."""
    bound: set[str] = set()
    for statement in statements:
        read, assigned = _names([statement])
        before = assigned if hasattr(statement, "body") else set[str]()  # a loop binds before its body reads
        if read & earlier & _names(statements)[1] - bound - before:
            return True
        bound |= assigned
    return False


def _names(statements: list[ast.stmt]) -> tuple[set[str], set[str]]:
    """Return the names that code reads and those that it binds, without those of its functions."""
    # Without the keywords that Python 3.14 rejects here outside of functions.
    code = re.sub(r"\b(?:await|async) ", "", ast.unparse(ast.Module(statements, [])))
    symbols = symtable.symtable(code, "snippet", "exec").get_symbols()
    read = {each.get_name() for each in symbols if each.is_referenced()}
    return read, {each.get_name() for each in symbols if each.is_assigned() or each.is_imported()}


class Checks:
    """A folder with modules to check."""

    def __init__(self, folder: Path, modules: Mapping[str, Module]) -> None:
        self._folder = folder.resolve()
        self._modules = {self._folder / f"{name}.py": module for name, module in modules.items()}
        for path, module in self._modules.items():
            path.write_text(module.text, encoding="utf-8")

    def mypy(self, *, plugin: bool) -> list[Finding]:
        """Return what `mypy --strict` reports, with or without pydantic's plugin."""
        # As the repository is checked, whose cache has the frameworks already.
        config, cache = ROOT / "pyproject.toml", CACHE
        if plugin:
            config, cache = self._folder / "plugin.ini", CACHE / "documents"
            config.write_text(_PLUGIN, encoding="utf-8")
        flags = ("--config-file", config, "--cache-dir", cache, "--no-pretty", "--hide-error-context")
        output = self._run("mypy", *flags, "--no-error-summary", *self._modules)
        return [
            self._finding(found["path"], int(found["line"]), found["text"])
            for found in map(_MYPY_LINE.match, output.splitlines())
            if found and self._folder / found["path"] in self._modules  # not in what they import
        ]

    def pyright(self, level: Mapping[str, Any]) -> list[Finding]:
        """Return what pyright reports at a level."""
        config = self._folder / "pyrightconfig.json"
        config.write_text(json.dumps(level), encoding="utf-8")
        report = json.loads(self._run("pyright", "--outputjson", "--project", config, "--pythonpath", sys.executable))
        return [
            self._finding(each["file"], each["range"]["start"]["line"] + 1, f"{each['message']} [{each.get('rule')}]")
            for each in report["generalDiagnostics"]
            if each["severity"] == "error"
        ]

    def _run(self, module: str, *arguments: object) -> str:
        env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        command = [sys.executable, "-m", module, *map(str, arguments)]
        run = subprocess.run(command, cwd=self._folder, env=env, capture_output=True, text=True, check=False)
        assert run.returncode in {0, 1}, run.stdout + run.stderr
        return run.stdout

    def _finding(self, path: str, line: int, text: str) -> Finding:
        return Finding(self._modules[self._folder / path].places[line - 1], text)
