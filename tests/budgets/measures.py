"""What is counted, for the native client and both adapters, sync and async. See `budgets.toml`."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from benchmarks.imports import STATEMENTS
from benchmarks.programs import langchain_ours, llama_index_ours, native_ours
from benchmarks.programs._parts import Program
from tests.budgets.counting import allocations, calls
from tests.budgets.memory import ADDRESS, in_memory, writes
from tests.budgets.table import Counts

_PROGRAMS = {"native": native_ours.ours, "langchain": langchain_ours.ours, "llama_index": llama_index_ours.ours}
_SHORT, _LONG = 100, 1000
"""The tokens of two streams, whose difference is the cost of a token."""
_TEXTS = ["Short waves scatter more than long ones."] * 100
_WARM_UP, _REPEATED = 3, 40


def count_all() -> Counts:
    """Count the work of every measure and case."""
    counts: Counts = {}
    for name, make in _PROGRAMS.items():
        with asyncio.Runner() as runner, in_memory(runner):
            for case, values in _cases(name, make(ADDRESS, runner), runner).items():
                for measure, value in values.items():
                    counts.setdefault(measure, {})[case] = value
    counts["modules_imported"] = {name: _modules(statement) for name, statement in STATEMENTS["ours"].items()}
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
            **_per_text(lambda: program.embeds[""](_TEXTS)),
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


def _modules(statement: str) -> int:
    """Return how many modules of this package an import loads, in a process of its own."""
    program = f"{statement}\nimport sys\nprint(sum(name.startswith('lmstudio_integrations') for name in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(ran.stdout)
