"""The memory that a response and a token take: `python -m benchmarks.memory` prints it as JSON.

What still lives after a response is a leak; what a token adds to the peak of a stream is its cost. Both are counted by
`tracemalloc` in this process, while the scripted server runs in another, and differ little from run to run.
"""

import gc
import json
import sys
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.environment import Process
from benchmarks.programs import RUNNER, Program, langchain, llama_index, native

_PROGRAMS = {"native": native, "langchain": langchain, "llama_index": llama_index}
_RESPONSES = 100
_SHORT, _LONG = 1000, 16000
"""The tokens of two streams, whose difference is the cost of a token."""


def measure(program: Program) -> dict[str, dict[str, float]]:
    """Return the bytes of a response and of a token, for threads and for coroutines."""

    async def consume(model: str) -> None:
        async for _ in program.astream(model):
            pass

    async def respond() -> None:
        for _ in range(_RESPONSES):
            await program.arespond("burst-1")

    def consume_sync(model: str) -> None:
        for _ in program.stream(model):
            pass

    def respond_sync() -> None:
        for _ in range(_RESPONSES):
            program.respond("burst-1")

    return {
        "sync": _bytes(respond_sync, consume_sync),
        "async": _bytes(lambda: RUNNER.run(respond()), lambda model: RUNNER.run(consume(model))),
    }


def _bytes(respond: Callable[[], object], consume: Callable[[str], object]) -> dict[str, float]:
    short, long = (partial(consume, f"burst-{tokens}") for tokens in (_SHORT, _LONG))
    for run in (respond, long):  # fills the caches
        run()
    living, _ = _allocated(respond)
    peaks = [_allocated(run)[1] for run in (short, long)]
    return {
        "living_per_response": round(living / _RESPONSES),
        "peak_per_token": round((peaks[1] - peaks[0]) / (_LONG - _SHORT)),
    }


def _allocated(run: Callable[[], object]) -> tuple[int, int]:
    """Return the bytes that are still allocated after a run, and the most that were during it."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        run()
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before, peak - before


def main() -> None:
    """Measure the native client and the adapters of both frameworks."""
    with Process(Path(sys.executable), "benchmarks.server") as server:
        address = f"127.0.0.1:{server.read()}"
        print(json.dumps({name: measure(module.ours(address)) for name, module in _PROGRAMS.items()}, indent=1))


if __name__ == "__main__":
    main()
