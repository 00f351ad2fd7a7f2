"""From the few things that each program can do to the cases that are measured."""

import asyncio
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.meter import Cases, Measure, cancellation, expect, microseconds, milliseconds, per_token
from benchmarks.script import DIMENSIONS, response_of

PROMPT = "Why is the sky blue?"
MODELS = ("burst-1", "burst-100", "burst-1000", "burst-16000", "paced-200")
CANCELLATIONS = {"cancel", "acancel"}
"""Cases that a floor has not: it cannot cancel, or no server could notice it."""

_AFTERMATH = 0.2
"""Seconds for which the loop runs on after a cancellation, as it does in a program that goes on."""

TEXTS = ["Short waves scatter more than long ones."] * 1000

Stream = Callable[[str], Iterable[object]]
AsyncStream = Callable[[str], AsyncIterable[object]]
Respond = Callable[[str], object]
AsyncRespond = Callable[[str], Awaitable[object]]
Embed = Callable[[list[str]], Sequence[Sequence[float]]]
Make = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Program:
    """What a program can do; each takes the name of a model.

    Attributes:
        stream: Return a response, at least one item per token.
        astream: The same in an event loop.
        respond: Return a non-streaming response.
        arespond: The same in an event loop.
        embeds: Ways to return the vectors of texts, by the name of the variant; `""` is the only or usual one.
        make: Construct the object that a user constructs.
        structured: Return a JSON object as instances of a class that are filled more and more.
        runner: The event loop of all that is asynchronous.
    """

    stream: Stream
    astream: AsyncStream
    respond: Respond
    arespond: AsyncRespond
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
            "cancel": cancellation(address, self._cancel),
            "acancel": cancellation(address, lambda: runner.run(self._acancel())),
        }
        for variant, embed in self.embeds.items():
            cases[f"embed{variant}"] = _embedding(embed)
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
            "whole": per_token(lambda: self.respond("burst-1000"), 1000),
            "awhole": per_token(lambda: runner.run(_coroutine(self.arespond("burst-1000"))), 1000),
            "one": milliseconds(lambda: self.respond("burst-1"), 100),
            "aone": milliseconds(lambda: runner.run(self._respond_often()), per=100),
            "many": per_token(lambda: runner.run(self._at_once()), 200 * 100),
        }

    async def _aconsume(self, model: str) -> None:
        count = 0
        async for _ in self.astream(model):
            count += 1
        expect(count, len(response_of(model).tokens))

    async def _respond_often(self) -> None:
        for _ in range(100):
            await self.arespond("burst-1")

    async def _at_once(self) -> None:
        await asyncio.gather(*(self._aconsume("burst-100") for _ in range(200)))

    def _cancel(self) -> float:
        response: Any = self.stream("paced-200")
        chunks = iter(response)
        for _ in range(3):
            next(chunks)
        cancelled = time.monotonic()
        response.close()
        return cancelled

    async def _acancel(self) -> float:
        response: Any = self.astream("paced-200")
        chunks = aiter(response)
        for _ in range(3):
            await anext(chunks)
        cancelled = time.monotonic()
        await response.aclose()
        await asyncio.sleep(_AFTERMATH)
        return cancelled


def _consume(stream: Stream, model: str) -> None:
    expect(sum(1 for _ in stream(model)), len(response_of(model).tokens))


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
