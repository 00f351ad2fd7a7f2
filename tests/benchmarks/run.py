"""Measure the client CPU of this package beside that of its peers, in one run, and print a table.

`python -m tests.benchmarks.run [--only native|langchain|llama_index|imports] [--rounds N]`

It never fails for being slow. Ctrl-C ends it early, with the table of what has been measured by then. How
measurements are made is described in `docs/speed.md`.
"""

import argparse
import contextlib
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks import environment
from tests.benchmarks.imports import STATEMENTS, Importer
from tests.benchmarks.processes import Server, Worker
from tests.benchmarks.rows import PROGRAMS, ROWS, Group, Row, cases
from tests.benchmarks.table import Measurements, render

GROUPS: tuple[Group, ...] = ("native", "langchain", "llama_index", "imports")


def main() -> None:
    """Run what the command line requests."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.run", description=__doc__)
    parser.add_argument("--only", choices=GROUPS, help="one group of rows instead of all")
    parser.add_argument("--rounds", type=int, default=7, help="how often each case is measured; default: %(default)s")
    arguments = parser.parse_args()
    rows = [row for row in ROWS if arguments.only in {None, row.group}]
    print(render(rows, _measured(environment.prepare(), rows, arguments.rounds), arguments.rounds))


def _measured(python: Path, rows: list[Row], rounds: int) -> Measurements:
    measurements: Measurements = defaultdict(list)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as processes:
        server = processes.enter_context(Server(python))
        for group in dict.fromkeys(row.group for row in rows):
            requested = list(dict.fromkeys(case for row in rows if row.group == group for case in cases(row)))
            with contextlib.ExitStack() as stack:
                _rounds(group, requested, _workers(python, server, group, stack), rounds, measurements)
    return measurements


def _workers(
    python: Path, server: Server, group: Group, stack: contextlib.ExitStack
) -> Mapping[str, Worker | Importer]:
    """Return who measures, by role."""
    if group == "imports":
        return {role: Importer(python, role) for role in STATEMENTS}
    return {
        role: stack.enter_context(Worker(python, program, server.address)) for role, program in PROGRAMS[group].items()
    }


def _rounds(
    group: Group,
    requested: list[str],
    workers: Mapping[str, Worker | Importer],
    rounds: int,
    measurements: Measurements,
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
