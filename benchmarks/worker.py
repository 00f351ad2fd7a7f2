"""The process of one measured program: `python -m benchmarks.worker PROGRAM ADDRESS`.

It prints the names of its cases as a JSON list, then reads names of cases and prints a value for each.
"""

import importlib
import json
import sys

from benchmarks.meter import Cases


def main(program: str, address: str) -> None:
    """Measure what is requested until the input ends."""
    cases: Cases = importlib.import_module(f"benchmarks.programs.{program}").cases(address)
    print(json.dumps(list(cases)), flush=True)
    for line in sys.stdin:
        print(json.dumps(cases[line.strip()]()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
