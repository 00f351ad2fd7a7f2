"""Play seeds: `python -m tests.simulation SEED` replays one; `--operations N` plays on until so many were made."""

import argparse
import itertools
import time

from tests.simulation.program import run

parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
parser.add_argument("seed", nargs="?", type=int, default=0)
parser.add_argument("--operations", type=int, default=0)
given = parser.parse_args()
began, done = time.process_time(), 0
if not given.operations:
    print("\n".join(run(given.seed)[1]))
else:
    for seed in itertools.count(given.seed):
        done += run(seed)[0]
        if done >= given.operations:
            print(f"{done:,} operations, seeds {given.seed} to {seed}, {time.process_time() - began:.0f} s")
            break
