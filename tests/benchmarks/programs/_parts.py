"""What programs have in common: from the few things that each can do to the cases that are measured."""

import asyncio
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.meter import Cases, Measure, departure, expect, microseconds, milliseconds, per_token
from tests.benchmarks.script import DIMENSIONS, answer_of

PROMPT = "Why is the sky blue?"
MODELS = ("burst-1", "burst-100", "burst-1000", "burst-16000", "paced-200")
_AFTERMATH = 0.2
"""Seconds for which the loop still runs after an answer was left, as it would in a program that goes on."""

TEXTS = ["Short waves scatter more than long ones."] * 1000

Stream = Callable[[str], Iterable[object]]
AsyncStream = Callable[[str], AsyncIterable[object]]
Ask = Callable[[str], object]
AsyncAsk = Callable[[str], Awaitable[object]]
Embed = Callable[[list[str]], Sequence[Sequence[float]]]
Make = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Program:
    """What a program can do; each takes the name of a model.

    Attributes:
        stream: Return an answer, one item per token at least.
        astream: The same in an event loop.
        ask: Return an answer in one piece.
        aask: The same in an event loop.
        embeds: Ways to return the vectors of texts, by what tells them apart; `""` needs no telling.
        make: Construct the object that a user constructs.
        structured: Return an answer that is a JSON object, as instances of a class that are filled more and more.
        runner: The event loop of all that is asynchronous.
    """

    stream: Stream
    astream: AsyncStream
    ask: Ask
    aask: AsyncAsk
    embeds: Mapping[str, Embed]
    make: Make | None = None
    structured: Stream | None = None
    runner: asyncio.Runner | None = None

    def cases(self, address: str) -> Cases:
        """Return what can be measured of it."""
        stream, runner = self.stream, self.runner or asyncio.Runner()
        cases = {
            **self._bursts(runner),
            "paced": per_token(lambda: _consume(stream, "paced-200"), 200),
            "apaced": per_token(lambda: runner.run(self._aconsume("paced-200")), 200),
            "leave": departure(address, self._leave),
            "aleave": departure(address, lambda: runner.run(self._aleave())),
        }
        for told_apart, embed in self.embeds.items():
            cases[f"embed{told_apart}"] = _embedding(embed)
        if self.make is not None:
            cases["construct"] = microseconds(self.make, 100)
        if self.structured is not None:
            cases["structured"] = _structured(self.structured)
        return cases

    def _bursts(self, runner: asyncio.Runner) -> Cases:
        stream = self.stream
        return {
            "stream": per_token(lambda: _consume(stream, "burst-1000"), 1000),
            "astream": per_token(lambda: runner.run(self._aconsume("burst-1000")), 1000),
            "long": per_token(lambda: _consume(stream, "burst-16000"), 16000),
            "whole": per_token(lambda: self.ask("burst-1000"), 1000),
            "awhole": per_token(lambda: runner.run(_coroutine(self.aask("burst-1000"))), 1000),
            "one": milliseconds(lambda: self.ask("burst-1"), 100),
            "aone": milliseconds(lambda: runner.run(self._ask_often()), per=100),
            "many": per_token(lambda: runner.run(self._at_once()), 200 * 100),
        }

    async def _aconsume(self, model: str) -> None:
        count = 0
        async for _ in self.astream(model):
            count += 1
        expect(count, len(answer_of(model).tokens))

    async def _ask_often(self) -> None:
        for _ in range(100):
            await self.aask("burst-1")

    async def _at_once(self) -> None:
        await asyncio.gather(*(self._aconsume("burst-100") for _ in range(200)))

    def _leave(self) -> float:
        answer: Any = self.stream("paced-200")
        pieces = iter(answer)
        for _ in range(3):
            next(pieces)
        left = time.monotonic()
        answer.close()
        return left

    async def _aleave(self) -> float:
        answer: Any = self.astream("paced-200")
        pieces = aiter(answer)
        for _ in range(3):
            await anext(pieces)
        left = time.monotonic()
        await answer.aclose()
        await asyncio.sleep(_AFTERMATH)
        return left


def _consume(stream: Stream, model: str) -> None:
    expect(sum(1 for _ in stream(model)), len(answer_of(model).tokens))


async def _coroutine(awaitable: Awaitable[object]) -> object:
    return await awaitable


def _embedding(embed: Embed) -> Measure:
    def run() -> None:
        vectors = embed(TEXTS)
        expect(len(vectors) * len(vectors[-1]), len(TEXTS) * DIMENSIONS)

    return milliseconds(run)


def _structured(stream: Stream) -> Measure:
    # How many instances there are is up to the program; that there are some is not.
    return per_token(lambda: expect(sum(1 for _ in stream("json-1000")), 2), 1000)
