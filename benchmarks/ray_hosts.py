"""Throughput of the stages of Ray Data with 1, 2 and 4 paced hosts, and what a row costs.

`python -m benchmarks.ray_hosts [--rows N]`

Needs Ray. The hosts are emulators in processes of their own: four slots, and 24
tokens in 0.6 s each, so that a host responds to 6.7 rows per second. The rate counts from the first response to the
last, so that starting Ray does not count. A last run on one host without a pace shows what a row costs by itself.
"""

import argparse
import os
import time
from typing import Any, NamedTuple

import ray

from lmstudio_integrations.ray.actors import Generator
from tests.ray.cluster.conftest import TOKEN, Host

PROMPT = "Row {id} " + " ".join(["word"] * 22)
PACE, SLOTS = 40, 4
COUNTS = (1, 2, 4)
UNPACED_ROWS = 5000


class Timed(Generator):
    """A generator that also shows when it had each response, and how much it had computed by then."""

    def output_types(self) -> dict[str, Any]:
        """Return the types of the columns."""
        import pyarrow as pa

        return {**super().output_types(), "done_at": pa.float64(), "computed": pa.float64()}

    async def _generate(self, row: dict[str, Any]) -> dict[str, Any]:
        values = await super()._generate(row)
        return {**values, "done_at": time.time(), "computed": time.process_time()}


class Rate(NamedTuple):
    """What one run measured: rows per second, and seconds of computing for a row in the actor and in the driver."""

    hosts: int
    rows: float
    actor: float
    driver: float


def measure(count: int, rows_per_host: int, pace: int | None = PACE) -> Rate:
    """Run a job on some hosts."""
    hosts = [Host(slots=SLOTS, pace=pace) for _ in range(count)]
    try:
        total, before = rows_per_host * count, time.process_time()
        ds = ray.data.range(total, override_num_blocks=4).map_batches(
            Timed,
            fn_constructor_kwargs={"model": "chat", "prompt": PROMPT, "hosts": [each.address for each in hosts]},
            batch_format="pyarrow",
            batch_size=16,
            compute=ray.data.ActorPoolStrategy(size=1, max_concurrent_calls_per_actor=4),
            num_cpus=0.1,
        )
        rows = ds.take_all()
        driver = (time.process_time() - before) / total
    finally:
        for each in hosts:
            each.kill()
    done, computed = [row["done_at"] for row in rows], [row["computed"] for row in rows]
    # The first responses of all slots come together, so they begin the measurement and do not count.
    steps = total - SLOTS * count
    return Rate(
        count,
        steps / (max(done) - sorted(done)[SLOTS * count - 1]),
        (max(computed) - min(computed)) / total,
        driver,
    )


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_hosts", description=__doc__)
    parser.add_argument("--rows", type=int, default=100, help="rows for each host; default: %(default)s")
    arguments = parser.parse_args()
    os.environ["LM_API_TOKEN"] = TOKEN
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    rates = [measure(count, arguments.rows) for count in COUNTS]
    unpaced = measure(1, UNPACED_ROWS, None)
    print("hosts   rows/s   of linear   actor ms/row   driver ms/row")
    for rate in rates:
        share = rate.rows / rates[0].rows / rate.hosts
        print(
            f"{rate.hosts:5}   {rate.rows:6.1f}   {share:9.2f}   {rate.actor * 1e3:12.2f}   {rate.driver * 1e3:13.2f}"
        )
    print(f"without a pace: {unpaced.rows:.0f} rows/s, {unpaced.actor * 1e3:.2f} and {unpaced.driver * 1e3:.2f} ms/row")


if __name__ == "__main__":
    main()
