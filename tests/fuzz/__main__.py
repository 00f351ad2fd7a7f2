"""`python -m tests.fuzz --calls 10000 --seed 1`: exits with 1 if there was a raw exception."""

import argparse
import sys

from tests.fuzz.runner import fuzz


def main() -> int:
    """Run, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="the one surface to call")
    parser.add_argument("--first", type=int, default=0, help="the number of the first call")
    arguments = parser.parse_args()
    report = fuzz(arguments.seed, arguments.calls, only=arguments.only, first=arguments.first)
    for name, calls in report.calls.items():
        print(f"{name}: {calls} calls")
        for (surface, outcome), count in report.outcomes.most_common():
            if surface == name:
                print(f"  {outcome}: {count}")
    for each in report.raw[:20]:
        print(each)
    print(f"raw exceptions: {len(report.raw)}")
    return 1 if report.raw else 0


if __name__ == "__main__":
    sys.exit(main())
