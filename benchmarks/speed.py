"""Measure the client CPU of this package beside that of its peers, in one run.

`python -m benchmarks.speed [--only native|langchain|llama_index] [--rounds N]` prints a table. A run of all groups is
also kept, in `benchmarks/results.json`, of which `python -m benchmarks.page` makes the pages and their chart. It never
fails for being slow. How measurements are made is described in `docs/internals/benchmarks.md`.
"""

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from benchmarks import environment
from benchmarks.environment import ROOT, Process
from benchmarks.programs import FLOOR, OURS

RESULTS = ROOT / "benchmarks/results.json"
GROUPS = {"native": "native", "langchain": "LangChain", "llama_index": "LlamaIndex"}
"""The modules of the programs, and the names that readers know."""

Measurements: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
"""The value of each round, by group, case and role."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        group: Whose it is.
        title: What it is about.
        case: What the programs call it.
        unit: The unit of all its values.
        floors: How many times the floor it may be, if the floor counts.
        peers: How many times the best peer it may be, if peers count.
        over: The case by whose value each is divided, for rows that compare.
    """

    group: str
    title: str
    case: str
    unit: str
    floors: float | None = None
    peers: float | None = None
    over: str | None = None

    @property
    def target(self) -> str:
        """What it should not exceed."""
        limits = [(factor, of) for factor, of in ((self.floors, FLOOR), (self.peers, "best peer")) if factor]
        return " and ".join(f"≤ {of}" if factor == 1 else f"≤ {factor:g} × {of}" for factor, of in limits)

    def values(self, measurements: Measurements) -> dict[str, float]:
        """Return the median of each role: the floor, ours, and the peers, the best one first."""
        cases = measurements[self.group]
        found = {role: median(rounds) for role, rounds in cases[self.case].items()}
        if self.over is not None:
            found = {role: value / median(cases[self.over][role]) for role, value in found.items()}
        return {FLOOR: found.pop(FLOOR), OURS: found.pop(OURS), **dict(sorted(found.items(), key=lambda peer: peer[1]))}

    def is_reached(self, values: Mapping[str, float]) -> bool:
        """Whether ours reaches the target."""
        floor, ours, best, *_ = values.values()
        limits = [factor * of for factor, of in ((self.floors, floor), (self.peers, best)) if factor is not None]
        return ours <= min(limits)


_TOKEN, _CALL, _GROWTH = "µs per token", "ms per call", "per-token cost at 16,000 tokens relative to 1,000"

ROWS = (
    Row("native", "stream, 1,000 tokens", "stream", _TOKEN, peers=0.1),
    Row("native", "async stream, 1,000 tokens", "astream", _TOKEN, peers=0.1),
    Row("native", "respond, one token", "one", _CALL, floors=2.2),
    Row("native", "async respond, one token", "aone", _CALL, floors=2.2),
    Row("native", "1,000 embeddings of 768 floats", "embed", "ms", peers=1),
    Row("native", _GROWTH, "long", "×", floors=1.2, over="stream"),
    Row("langchain", "stream, 1,000 tokens", "stream", _TOKEN, floors=1.8, peers=0.6),
    Row("langchain", "astream, 1,000 tokens", "astream", _TOKEN, floors=1.8, peers=0.6),
    Row("langchain", "stream_events, 1,000 tokens", "events", _TOKEN, floors=1, peers=0.6),
    Row("langchain", "invoke, one token", "one", _CALL, peers=0.5),
    Row("langchain", "200 streams of 100 tokens at once", "many", _TOKEN, peers=0.6),
    Row("langchain", "1,000 embeddings of 768 floats", "embed", "ms", peers=1),
    Row("langchain", _GROWTH, "long", "×", floors=1.2, over="stream"),
    Row("llama_index", "stream_chat, 1,000 tokens", "stream", _TOKEN, peers=0.6),
    Row("llama_index", "astream_chat, 1,000 tokens", "astream", _TOKEN, peers=0.6),
    Row("llama_index", "chat, one token", "one", _CALL, peers=0.75),
    Row("llama_index", "achat, one token", "aone", _CALL, peers=0.75),
    Row("llama_index", "1,000 embeddings of 768 floats", "embed", "ms", peers=1),
    Row("llama_index", _GROWTH, "long", "×", floors=1.2, over="stream"),
)


def table(rows: Sequence[Row], measurements: Measurements) -> str:
    """Return the table in Markdown, without rows whose case was not measured."""
    lines = [
        "| case | unit | floor | ours | × floor | others | target |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in (row for row in rows if row.case in measurements[row.group]):
        values = row.values(measurements)
        floor, ours = values[FLOOR], values[OURS]
        others = "; ".join(f"{who} {number(value)}" for who, value in values.items() if who not in {FLOOR, OURS})
        target = row.target if row.is_reached(values) else f"{row.target}: **missed**"
        cells = (number(floor), number(ours), number(ours / floor), others, target)
        lines.append(f"| {GROUPS[row.group]}: {row.title} | {row.unit} | {' | '.join(cells)} |")
    return "\n".join(lines)


def number(value: float) -> str:
    """Return a value with three digits or more."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def measure(python: Path, group: str, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Measure each case of each program of a group once a round, after one round that only warms up."""
    cases = dict.fromkeys(row.case for row in ROWS if row.group == group)
    found: dict[str, dict[str, list[float]]] = {case: {} for case in cases}
    with _workers(python, group) as workers:
        for number in range(rounds + 1):
            print(f"{group}: round {number} of {rounds}", file=sys.stderr)
            for case in cases:
                for role, (worker, known) in workers.items():
                    if case not in known:
                        continue
                    value = float(f"{float(worker.ask(case)):.4g}")
                    if number:
                        found[case].setdefault(role, []).append(value)
    return found


@contextlib.contextmanager
def _workers(python: Path, group: str) -> Iterator[dict[str, tuple[Process, list[str]]]]:
    """Start the scripted server, and a process for each program of a group, which knows some cases."""
    roles = import_module(f"benchmarks.programs.{group}").PROGRAMS
    with contextlib.ExitStack() as stack:
        address = f"127.0.0.1:{stack.enter_context(Process(python, 'benchmarks.server')).read()}"
        workers = {
            role: stack.enter_context(Process(python, "benchmarks.worker", group, role, address)) for role in roles
        }
        yield {role: (worker, json.loads(worker.read())) for role, worker in workers.items()}


def main() -> None:
    """Run what the command line requests."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--only", choices=GROUPS, help="one group of rows instead of all")
    parser.add_argument("--rounds", type=int, default=7, help="how often each case is measured; default: %(default)s")
    arguments = parser.parse_args()
    python = environment.prepare()
    groups = [group for group in GROUPS if arguments.only in {None, group}]
    measurements = {group: measure(python, group, arguments.rounds) for group in groups}
    print(table([row for row in ROWS if row.group in groups], measurements))
    if arguments.only is None:
        results: dict[str, Any] = {
            "date": datetime.now(UTC).date().isoformat(),
            "rounds": arguments.rounds,
            "machine": environment.machine(),
            "versions": environment.versions(python),
            "measurements": measurements,
        }
        RESULTS.write_text(to_json(results), encoding="utf-8")


def to_json(results: Mapping[str, Any]) -> str:
    """Return results as JSON, with the rounds of each case and role on one line."""
    lines = json.dumps(results, indent=1, ensure_ascii=False)
    return re.sub(r"\[[^\]]*\]", lambda numbers: re.sub(r"\s+", "", numbers[0]), lines) + "\n"


if __name__ == "__main__":
    main()
