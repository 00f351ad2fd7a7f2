"""Play seeds: `python -m tests.simulation SEED` replays one.

`--operations N` plays on until so many were made, `--seconds N` until that took so much time of the processor.
"""

import argparse
import itertools
import math
import time

from tests.simulation.program import run

parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
parser.add_argument("seed", nargs="?", type=int, default=0)
parser.add_argument("--operations", type=int, default=0)
parser.add_argument("--seconds", type=int, default=0)
given = parser.parse_args()
if not (given.operations or given.seconds):
    print("\n".join(run(given.seed)[1]))
else:
    done, began = 0, time.process_time()
    for seed in itertools.count(given.seed):
        done, seconds = done + run(seed)[0], time.process_time() - began
        if done >= (given.operations or math.inf) or seconds >= (given.seconds or math.inf):
            print(f"{done:,} operations, seeds {given.seed} to {seed}, {seconds:.0f} s")
            break
