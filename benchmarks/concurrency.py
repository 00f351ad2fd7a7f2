"""Many connections and many open predictions at once: `python -m benchmarks.concurrency`.

Client and server have processes of their own. Every packet is checked: none may be lost, doubled or out of order.
One client reads nothing while all others are served, and must find everything when it does.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks._process import Line, line, predict_parameter, server

CATALOG = Path(__file__).with_suffix(".toml")
LAZY_WORDS = 20_000


async def main() -> int:
    """Run the benchmark; return the status of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--predictions", type=int, default=1000)
    parser.add_argument("--words", type=int, default=50, help="per prediction")
    arguments = parser.parse_args()
    text = " ".join(f"w{number}" for number in range(arguments.words))
    async with server(CATALOG) as process, AsyncExitStack() as stack:
        lines = [
            await stack.enter_async_context(line(process.address, "llm", f"guest:{number}"))
            for number in range(arguments.connections)
        ]
        # This one reads nothing until the others are done.
        lazy = await stack.enter_async_context(line(process.address, "llm", "guest:lazy"))
        lazy_text = " ".join(f"w{number}" for number in range(LAZY_WORDS))
        lazy.socket.transport.pause_reading()
        _, lazy_frames = await lazy.open("predict", predict_parameter("fast", lazy_text))
        started, cpu = time.perf_counter(), process.cpu_seconds
        opened = [
            await lines[number % len(lines)].open("predict", predict_parameter("steady", text))
            for number in range(arguments.predictions)
        ]
        reading = asyncio.gather(*(read(frames) for _, frames in opened))
        peak = await most_at_once(lines[0], arguments.predictions)
        responses = await reading
        seconds, cpu = time.perf_counter() - started, process.cpu_seconds - cpu
        lazy.socket.transport.resume_reading()
        lost = sum(response != text for response in responses)
        lazy_lost = await read(lazy_frames) != lazy_text
        warnings = sum(each.warnings for each in [*lines, lazy])
        print(f"connections                {len(lines)}")
        print(f"predictions                {arguments.predictions}, {peak} open at once")
        print(f"words                      {arguments.predictions * arguments.words} in {seconds:.1f} s")
        print(
            f"server's computing time    {cpu:.1f} s, "
            f"{cpu / arguments.predictions / arguments.words * 1e6:.0f} µs a word"
        )
        print(f"responses with a gap         {lost}")
        print(f"the slow reader's response  {'has a gap' if lazy_lost else 'complete'}, {LAZY_WORDS} words")
        print(f"warnings                   {warnings}")
        return int(lost > 0 or lazy_lost or warnings > 0 or peak < arguments.predictions)


async def most_at_once(probe: Line, requested: int) -> int:
    """Return how many predictions the server has at once at most, looking until there are as many as requested."""
    peak = 0
    parameter: dict[str, Any] = {
        "specifier": {"type": "query", "query": {"identifier": "steady"}},
        "throwIfNotFound": True,
    }
    while True:
        response = await probe.call("getInstanceProcessingState", parameter)
        queued = int(response["result"]["queued"])
        if queued < peak or peak >= requested:
            return peak
        peak = queued


async def read(frames: AsyncIterator[dict[str, Any]]) -> str:
    """Return the text of a prediction."""
    fragments: list[str] = []
    async for frame in frames:
        message = frame.get("message", {})
        if message.get("type") == "fragment":
            fragments.append(message["fragment"]["content"])
    return "".join(fragments)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
