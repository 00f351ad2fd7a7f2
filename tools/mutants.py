"""Mutants of the trunk: small faults, planted one at a time, that the fast tests should notice.

`record` runs the fast tests once and stores which test function runs which line. `judge` plants the same mutants of a
seed, one at a time, in a copy, and runs only the test functions that run lines of the changed file, until one fails. It
ends with how many were noticed in each room, which is a package of the trunk:

    python -m tools.mutants record
    python -m tools.mutants judge --count 600 --seed 27 --json mutants.json
"""

import argparse
import ast
import json
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from coverage.numbits import num_in_numbits

from tools.copies import copy_clone, run_in
from tools.leaves import is_of, leaves, module_name

PACKAGE = Path("lmstudio_integrations")
DATA = Path("build/mutants.coverage")
SECONDS = Path("build/mutants.seconds.json")
"""How long each test function took while it was recorded."""
SLOW = 1.0
"""Seconds from which on a test function runs after the faster ones."""
HANGS = 120.0
"""Seconds, besides many times what its tests take, after which a process is ended: it hangs because of a mutant."""
PORTIONS = (20, 100, 500, None)
"""How many test functions run in the first, second and third process; the rest run in the last."""

_USAGE = 4
"""The status with which pytest ends if a test does not exist."""

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}


@dataclass(frozen=True)
class Mutant:
    """One changed place of one file."""

    file: str
    line: int
    start: int
    """Offset in the file's bytes of what is replaced; `end` is where it ends."""
    end: int
    before: str
    after: str


def mutants_of(path: Path) -> list[Mutant]:
    """Return every mutant of a file, in the order of the file."""
    source = path.read_bytes()
    offsets = [0]
    for text in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(text))
    mutants = []
    for node, changed in _changes(ast.parse(source)):
        start = offsets[node.lineno - 1] + node.col_offset
        end = offsets[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        after = ast.unparse(changed) if isinstance(changed, ast.stmt) else f"({ast.unparse(changed)})"
        mutants.append(Mutant(str(path), node.lineno, start, end, source[start:end].decode(), after))
    return sorted(mutants, key=lambda mutant: (mutant.start, mutant.after))


def _changes(tree: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, ast.expr | ast.stmt]]:
    """Yield a node and what takes its place. Annotations, docstrings and f-strings stay as they are."""
    if isinstance(tree, ast.expr | ast.stmt):
        yield from ((tree, changed) for changed in _changes_of(tree))
    for name, value in ast.iter_fields(tree):
        if name in {"annotation", "returns", "decorator_list"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_left_alone(child):
                yield from _changes(child)


def _is_left_alone(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant()) | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Subscript(value=ast.Name(id="Literal" | "Annotated")):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
        case ast.Call(func=ast.Name(id="cast" | "TypeVar" | "NewType" | "ParamSpec")):
            return True
        case _:
            return False


def _changes_of(node: ast.expr | ast.stmt) -> Iterator[ast.expr | ast.stmt]:
    match node:
        case ast.Compare(ops=[operator]):
            yield ast.Compare(node.left, [_COMPARISONS[type(operator)]()], node.comparators)
        case ast.BoolOp():
            yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            yield ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
        case ast.IfExp():
            yield ast.IfExp(node.test, node.orelse, node.body)
        case ast.Constant(value=bool() | int() | float() | str() as value) if value != "":
            yield ast.Constant(_other(value))
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Continue() | ast.Break():
            yield ast.Pass()
        case _:
            pass


def choose(count: int, seed: int) -> list[Mutant]:
    """Return the mutants of a seed, chosen among all of the trunk."""
    of_leaves = [name for names in leaves().values() for name in names]
    trunk = [path for path in sorted(PACKAGE.rglob("*.py")) if not is_of(module_name(path.absolute()), of_leaves)]
    everything = [mutant for path in trunk for mutant in mutants_of(path)]
    return random.Random(seed).sample(everything, count)


def room_of(file: str) -> str:
    """Return the room of a file."""
    return Path(file).parts[1].removesuffix(".py")


def _other(value: bool | float | str) -> bool | float | str:
    if isinstance(value, str):
        return f"{value}~"
    return not value if isinstance(value, bool) else value + 1


class Covering:
    """Which test functions run a line, as `record` stored it."""

    def __init__(self, data: Path) -> None:
        self._seconds: dict[str, float] = json.loads(SECONDS.read_text())
        self._database = sqlite3.connect(data)
        self._breadth = dict(
            self._database.execute("select context_id, sum(length(numbits)) from line_bits group by context_id")
        )

    def tests(self, file: str, lines: Collection[int]) -> list[str]:
        """Return the test functions that run some lines, then the others that run any line of the file.

        The narrowest of them come first. The others may need a line that ran before them: at an import, or for a cache.
        """
        rows = self._database.execute(
            "select context.context, context.id, numbits from line_bits join context on context.id = context_id"
            " join file on file.id = file_id where file.path like ?",
            [f"%/{file}"],
        ).fetchall()
        ranks: dict[str, tuple[bool, bool, int]] = {}
        for name, number, bits in rows:
            if "::" in name:
                test, runs_line = name.removesuffix("|"), any(num_in_numbits(line, bits) for line in lines)
                rank = not runs_line, self._seconds.get(test, 0) > SLOW, self._breadth[number]
                ranks[test] = min(rank, ranks.get(test, rank))
        return sorted(ranks, key=lambda test: (ranks[test], test))

    def failure(self, folder: Path, file: str, lines: Collection[int]) -> str | None:
        """Return which test function fails first, of those that run some lines, in a copy; `None` if none does."""
        pytest = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", "-m", "fast"]
        tests, start = self.tests(file, lines), 0
        for size in PORTIONS:
            portion = tests[start:][:size]
            start += len(portion)
            seconds = HANGS + 5 * sum(self._seconds.get(test, 0) for test in portion)
            if portion and (failure := failure_of(folder, *pytest, *portion, seconds=seconds)):
                return failure
        return None


def judge(folder: Path, mutant: Mutant, covering: Covering) -> str | None:
    """Plant a mutant in a copy, and return the test that noticed it; `None` if none did."""
    path = folder / mutant.file
    source = path.read_bytes()
    path.write_bytes(source[: mutant.start] + mutant.after.encode() + source[mutant.end :])
    try:
        return covering.failure(folder, mutant.file, [mutant.line])
    finally:
        path.write_bytes(source)


def failure_of(folder: Path, *arguments: str, seconds: float | None = None) -> str | None:
    """Return how a run of Python fails in a copy, also because it does not end; `None` if it does not fail."""
    try:
        done = run_in(folder, *arguments, seconds=seconds)
    except subprocess.TimeoutExpired:
        return "timeout"
    if done.returncode in {0, 5}:  # pytest has run none of the tests
        return None
    if done.returncode == _USAGE and "not found: " in done.stderr:  # not so if a mutant lets its file not be imported
        raise SystemExit(f"{done.stdout}{done.stderr}\nThe tests have changed; run `python -m tools.mutants record`")
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR tests/"))]
    return lines[0] if lines else (done.stdout + done.stderr)[-300:] or f"status {done.returncode}"


def _record(arguments: list[str]) -> None:
    settings = Path("build/mutants.coveragerc")
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(
        f"[run]\nsource = {PACKAGE}\nparallel = true\npatch = subprocess, _exit\ncore = ctrace\n"
        "context = ${RUNNING_TEST-}\n"
    )
    coverage = [sys.executable, "-m", "coverage"]
    run = [f"--rcfile={settings}", f"--data-file={DATA}", "-m", "pytest", "-m", "fast", "-p", "tools.test_contexts"]
    subprocess.run([*coverage, "run", *run, *arguments], check=False)
    subprocess.run([*coverage, "combine", f"--rcfile={settings}", f"--data-file={DATA}"], check=True)


def main() -> None:
    """Record which tests run which line, or judge mutants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["record", "judge"])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=27)
    parser.add_argument("--json", type=Path, help="a file of an earlier run is continued")
    options, rest = parser.parse_known_args()
    if options.what == "record":
        _record(rest)
        return
    covering = Covering(DATA)
    results = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    with TemporaryDirectory() as folder:
        copy_clone(Path(folder))
        for mutant in choose(options.count, options.seed)[len(results) :]:
            failure = judge(Path(folder), mutant, covering)
            results.append({**asdict(mutant), "noticed": failure})
            change = f"{mutant.before!r} -> {mutant.after!r}"
            print(f"{mutant.file}:{mutant.line} {change}: {failure or 'SURVIVED'}", flush=True)
            if options.json:
                options.json.write_text(json.dumps(results, indent=1))
    planted = Counter(room_of(result["file"]) for result in results)
    noticed = Counter(room_of(result["file"]) for result in results if result["noticed"])
    for room, count in sorted(planted.items()):
        print(f"{room}: {noticed[room]} of {count} noticed")
    print(f"{noticed.total()} of {planted.total()} noticed")


if __name__ == "__main__":
    main()
