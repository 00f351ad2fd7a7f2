"""What is counted, for the native client and both adapters, sync and async: one response, one token, one embedding.

What each of them may cost stands in `budgets.json`, counted with Python 3.11, without a thread or a socket. A higher
budget needs a reason in its commit.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from unittest import mock

from benchmarks.programs import Program, langchain, llama_index, native
from tests.budgets.counting import allocations, calls
from tests.budgets.memory import ADDRESS, in_memory, writes

BUDGETS = Path(__file__).with_name("budgets.json")
_PROGRAMS = {"native": native, "langchain": langchain, "llama_index": llama_index}
_SHORT, _LONG = 100, 1000
"""The tokens of two streams, whose difference is the cost of a token."""
_TEXTS = ["Short waves scatter more than long ones."] * 100
_WARM_UP, _REPEATED = 3, 40


def count_all() -> dict[str, dict[str, float]]:
    """Count the work of every measure and case."""
    counts: dict[str, dict[str, float]] = {}
    for name, module in _PROGRAMS.items():
        # The native program makes its models in a loop already.
        with asyncio.Runner() as runner, mock.patch.object(native, "RUNNER", runner), in_memory(runner):
            for case, values in _cases(name, module.ours(ADDRESS), runner).items():
                for measure, value in values.items():
                    counts.setdefault(measure, {})[case] = value
    return counts


def _cases(name: str, program: Program, runner: asyncio.Runner) -> Mapping[str, dict[str, float]]:
    async def consume(model: str) -> None:
        async for _ in program.astream(model):
            pass

    async def respond() -> None:
        await program.arespond("burst-1")

    def consume_sync(model: str) -> None:
        for _ in program.stream(model):
            pass

    return {
        name: {
            **_one(lambda: program.respond("burst-1")),
            **_per_token(consume_sync),
            **_per_text(lambda: program.embed and program.embed(_TEXTS)),
        },
        f"{name}_async": {
            **_one(lambda: runner.run(respond())),
            **_per_token(lambda model: runner.run(consume(model))),
        },
    }


def _one(respond: Callable[[], object]) -> dict[str, float]:
    """Return what a response of one token costs."""
    found = _counted(respond)
    writes.clear()
    respond()
    written = writes["writes"]
    _, peak = allocations(respond)
    # The first run fills caches.
    _, (live, _) = (allocations(lambda: [respond() for _ in range(_REPEATED)] and None) for _ in range(2))
    return {
        "calls_per_response": found.total(),
        "wakes_of_io_thread_per_response": found["IOThread.submit"],
        "wakes_of_caller_per_response": found["ThreadWaiter._wake"] + found["LoopWaiter._wake"],
        "writes_per_response": written,
        "peak_bytes_per_response": round(peak, -2),
        "live_bytes_per_response": round(abs(live / _REPEATED), -3),
    }


def _per_token(consume: Callable[[str], object]) -> dict[str, float]:
    """Return what a token of a stream costs more."""
    tokens = _LONG - _SHORT
    runs = [partial(consume, f"burst-{count}") for count in (_SHORT, _LONG)]
    short, long = map(_counted, runs)
    (_, peak_of_short), (_, peak_of_long) = map(allocations, runs)
    return {
        "calls_per_token": round((long.total() - short.total()) / tokens, 2),
        "frames_parsed_per_token": round((long["parse"] - short["parse"]) / tokens, 2),
        "peak_bytes_per_token": round((peak_of_long - peak_of_short) / tokens),
    }


def _per_text(embed: Callable[[], object]) -> dict[str, float]:
    """Return what the vector of a text costs, in a batch."""
    return {"calls_per_embedding": round(_counted(embed).total() / len(_TEXTS), 2)}


def _counted(run: Callable[[], object]) -> Counter[str]:
    for _ in range(_WARM_UP):
        run()
    return calls(run)
