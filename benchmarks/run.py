"""Measure the client CPU of this package beside that of its peers, in one run, and print a table.

`python -m benchmarks.run [--only native|langchain|llama_index|imports] [--rounds N] [--against CHECKOUT]
[--json FILE]`

With `--against`, this package of another checkout runs in the same rounds and is shown among the others as `before`.
`--json` writes the value of each round, the versions and the machine; `python -m benchmarks.page` makes the page
of it. It never fails for being slow. Ctrl-C ends it early, with what has been measured by then. How measurements are
made is described in `docs/speed.md`.
"""

import argparse
import contextlib
import sys
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import environment
from benchmarks.environment import ROOT
from benchmarks.imports import STATEMENTS, Importer
from benchmarks.processes import Server, Worker
from benchmarks.results import Results, outcomes, to_json
from benchmarks.rows import PROGRAMS, ROWS, TITLES, Group, Row, cases
from benchmarks.table import render
from benchmarks.targets import BEFORE, OURS

_Measured = dict[tuple[Group, str, str], list[float]]


def main() -> None:
    """Run what the command line requests."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--only", choices=TITLES, help="one group of rows instead of all")
    parser.add_argument("--rounds", type=int, default=7, help="how often each case is measured; default: %(default)s")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="measure the package of this checkout as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to this file")
    arguments = parser.parse_args()
    rows = [row for row in ROWS if arguments.only in {None, row.group}]
    before = None if arguments.against is None else arguments.against.resolve()
    results = _results(rows, arguments.rounds, before)
    print(render(outcomes(rows, results.measurements)))
    if arguments.json is not None:
        arguments.json.write_text(to_json(results), encoding="utf-8")


def _results(rows: list[Row], rounds: int, before: Path | None) -> Results:
    python, date = environment.prepare(), datetime.now(UTC).date().isoformat()
    versions, machine = environment.versions(python), environment.machine()
    return Results(date, rounds, machine, versions, _measured(python, rows, rounds, before))


def _measured(python: Path, rows: list[Row], rounds: int, before: Path | None) -> _Measured:
    measurements: _Measured = defaultdict(list)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as processes:
        server = processes.enter_context(Server(python))
        for group in dict.fromkeys(row.group for row in rows):
            requested = list(dict.fromkeys(case for row in rows if row.group == group for case in cases(row)))
            with contextlib.ExitStack() as stack:
                _rounds(group, requested, _workers(python, server, group, stack, before), rounds, measurements)
    return measurements


def _workers(
    python: Path, server: Server, group: Group, stack: contextlib.ExitStack, before: Path | None
) -> Mapping[str, Worker | Importer]:
    """Return who measures, by role."""
    workers: dict[str, Worker | Importer] = {}
    for role in STATEMENTS if group == "imports" else PROGRAMS[group]:
        for name, checkout in ((role, ROOT), (BEFORE, before if role == OURS else None)):
            if checkout is not None:
                workers[name] = _worker(python, server, group, stack, role, checkout)
    return workers


def _worker(
    python: Path, server: Server, group: Group, stack: contextlib.ExitStack, role: str, checkout: Path
) -> Worker | Importer:
    if group == "imports":
        return Importer(python, role, checkout=checkout)
    return stack.enter_context(Worker(python, PROGRAMS[group][role], server.address, checkout=checkout))


def _rounds(
    group: Group,
    requested: list[str],
    workers: Mapping[str, Worker | Importer],
    rounds: int,
    measurements: _Measured,
) -> None:
    """Measure each case of each program once a round, after one round that only warms up."""
    for number in range(rounds + 1):
        print(f"{group}: round {number} of {rounds}", file=sys.stderr)
        for requested_case in requested:
            for role, worker in workers.items():
                for case in _variants(requested_case, worker.cases):
                    value = worker.measure(case)
                    if number:
                        measurements[group, case, role].append(value)


def _variants(case: str, known: list[str]) -> list[str]:
    """Return the cases of a program that a row requests: `embed` also stands for `embed, base64`."""
    return [each for each in known if each == case or each.startswith(f"{case}, ")]


if __name__ == "__main__":
    main()
