"""Measure the emulator's llama.cpp engine beside the same engine called directly, and print a table.

`python -m benchmarks.engine [--rounds N] [--only CASE] [--json FILE]`

Both backends load the bundled weights with the same parameters and generate with the same settings. `Directly` is the
engine's library, called in the process that loaded it. The emulator is one process, its workers are others, and our
client is another. Throughput is wall time, so it depends on what else runs on the machine. Each round runs each case on
both backends, which take turns in going first; a ratio is the median of the ratios of the rounds.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.engine_cases import CASES, Measurement
from benchmarks.engine_table import DIRECT, EMULATOR, Rounds, render
from benchmarks.environment import FOLDER
from benchmarks.processes import Process


def main() -> None:
    """Run what the command line requests."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each case is measured; default: %(default)s")
    parser.add_argument("--only", choices=CASES, help="one case instead of all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the measurements of each round")
    arguments = parser.parse_args()
    rounds: Rounds = {case: [] for case in CASES if arguments.only in {None, case}}
    with contextlib.suppress(KeyboardInterrupt), _backends() as backends:
        _measure(backends, rounds, arguments.rounds)
    print(render(rounds))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rounds, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _backends() -> Iterator[Mapping[str, Process]]:
    """Start both backends, each of which has loaded both models."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    python, module = Path(sys.executable), "benchmarks.engine_backends"
    with (
        Process(python, module, "server") as server,
        Process(python, module, "direct") as direct,
        Process(python, module, "emulator", server.read()) as emulator,
    ):
        backends = {DIRECT: direct, EMULATOR: emulator}
        for process in backends.values():
            process.read()
        yield backends


def _measure(backends: Mapping[str, Process], rounds: Rounds, count: int) -> None:
    """Measure each case once a round, after one round that only warms up."""
    for number in range(count + 1):
        print(f"round {number} of {count}", file=sys.stderr)
        names = sorted(backends, reverse=number % 2 == 1)
        for at, case in enumerate(rounds):
            measured = {name: _run(backends[name], case, number * len(rounds) + at) for name in names}
            if number:
                rounds[case].append(measured)


def _run(process: Process, case: str, number: int) -> Measurement:
    process.write(f"{case} {number}")
    measured: Measurement = json.loads(process.read())
    return measured


if __name__ == "__main__":
    main()
