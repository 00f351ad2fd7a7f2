"""What is measured: what each program can do, and the cases made of it, so that programs differ in nothing else.

`native.py`, `langchain.py` and `llama_index.py` have the programs of a group, by their roles. Each makes a model once
for each name, as users do, and imports its package on its own, because no process has them all.
"""

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.server import DIMENSIONS, vector

FLOOR, OURS = "floor", "ours"
"""The roles of what a framework, or reading a socket, costs by itself, and of this package; the others are peers."""

PROMPT = "Why is the sky blue?"
MODELS = ("burst-1", "burst-100", "burst-1000", "burst-16000")
TEXTS = ["Short waves scatter more than long ones."] * 1000

RUNNER = asyncio.Runner()
"""The event loop of all that is asynchronous."""

Embed = Callable[[list[str]], Sequence[Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Program:
    """What a program can do; each function takes the name of a model, and a stream has at least one item per token.

    Attributes:
        embed: Return the vectors of texts; `None` if it embeds nothing.
        only_embeds: Whether the other cases are those of another program.
        events: Return a stream in the events of LangChain's protocol; `None` if the framework has none.
    """

    stream: Callable[[str], Iterable[object]]
    astream: Callable[[str], AsyncIterable[object]]
    respond: Callable[[str], object]
    arespond: Callable[[str], Awaitable[object]]
    embed: Embed | None
    only_embeds: bool = False
    events: Callable[[str], Iterable[object]] | None = None

    def cases(self) -> dict[str, Callable[[], float]]:
        """Return what measures each case: microseconds of CPU per token, or milliseconds per call."""
        run = RUNNER.run
        cases = {
            "stream": lambda: _cpu(lambda: _consume(self.stream, 1000)) / 1000 * 1e6,
            "astream": lambda: _cpu(lambda: run(self._aconsume(1000))) / 1000 * 1e6,
            "long": lambda: _cpu(lambda: _consume(self.stream, 16000)) / 16000 * 1e6,
            "many": lambda: _cpu(lambda: run(self._at_once(200))) / 200 / 100 * 1e6,
            "one": lambda: _cpu(lambda: [self.respond("burst-1") for _ in range(100)]) / 100 * 1e3,
            "aone": lambda: _cpu(lambda: run(self._arespond(100))) / 100 * 1e3,
        }
        if (events := self.events) is not None:
            cases["events"] = lambda: _cpu(lambda: _consume(events, 1000)) / 1000 * 1e6
        embeds = {} if self.embed is None else {"embed": lambda: _cpu(self._embed) * 1e3}
        return embeds if self.only_embeds else cases | embeds

    async def _aconsume(self, tokens: int) -> None:
        count = 0
        async for _ in self.astream(f"burst-{tokens}"):
            count += 1
        expect(count, tokens)

    async def _at_once(self, streams: int) -> None:
        await asyncio.gather(*(self._aconsume(100) for _ in range(streams)))

    async def _arespond(self, times: int) -> None:
        for _ in range(times):
            await self.arespond("burst-1")

    def _embed(self) -> None:
        assert self.embed is not None
        vectors = self.embed(TEXTS)
        expect(len(vectors) * len(vectors[-1]), len(TEXTS) * DIMENSIONS)


def _consume(stream: Callable[[str], Iterable[object]], tokens: int) -> None:
    expect(sum(1 for _ in stream(f"burst-{tokens}")), tokens)


def parsed_vectors(texts: list[str]) -> list[list[float]]:
    """Return the vectors of texts, each parsed from JSON: the floor of a framework."""
    body = json.dumps(vector())
    return [json.loads(body) for _ in texts]


def _cpu(run: Callable[[], object]) -> float:
    """Return the seconds of CPU that all threads of this process need for it."""
    gc.collect()
    started = time.process_time()
    run()
    return time.process_time() - started


def expect(count: int, expected: int) -> None:
    """Check that nothing is missing: a program that loses tokens would be the fastest.

    Raises:
        ValueError: If something is missing.
    """
    if count < expected:
        raise ValueError(f"received {count} of {expected}")
