"""The process of one measured program: `python -m benchmarks.worker GROUP ROLE ADDRESS`.

It prints the names of its cases as a JSON list, then reads names of cases and prints a value for each.
"""

import importlib
import json
import sys


def main(group: str, role: str, address: str) -> None:
    """Measure what is requested until the input ends."""
    cases = importlib.import_module(f"benchmarks.programs.{group}").PROGRAMS[role](address).cases()
    print(json.dumps(list(cases)), flush=True)
    for line in sys.stdin:
        print(json.dumps(cases[line.strip()]()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
