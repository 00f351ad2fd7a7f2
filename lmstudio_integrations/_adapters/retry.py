"""Trying again where no server answers: the only failure after which nothing can have been done twice."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from typing import TYPE_CHECKING, TypeVar

from lmstudio_integrations.errors import LMStudioUnreachableError

if TYPE_CHECKING:
    from lmstudio_integrations.client.asynchronous import AsyncPredictionStream
    from lmstudio_integrations.client.sync import PredictionStream
    from lmstudio_integrations.types.results import PredictionEvent

T = TypeVar("T")

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 8.0
"""Seconds before the first repetition, doubled each time, and the most."""

sleep = time.sleep
asleep = asyncio.sleep


def _delays(retries: int) -> Iterator[float | None]:
    """Yield the pause after each attempt; `None` after the last."""
    for attempt in range(retries):
        yield min(_FIRST_DELAY * 2**attempt, _LONGEST_DELAY)
    yield None


def repeat(call: Callable[[], T], retries: int) -> T:
    """Return what a call returns."""
    delays = _delays(retries)
    while True:
        try:
            return call()
        except LMStudioUnreachableError:
            delay = next(delays)
            if delay is None:
                raise
            sleep(delay)


async def arepeat(call: Callable[[], Awaitable[T]], retries: int) -> T:
    """Return what a call returns."""
    delays = _delays(retries)
    while True:
        try:
            return await call()
        except LMStudioUnreachableError:
            delay = next(delays)
            if delay is None:
                raise
            await asleep(delay)


def batches(open_stream: "Callable[[], PredictionStream]", retries: int) -> "Generator[list[PredictionEvent]]":
    """Yield the events of a prediction as they come; closing this stops the server."""
    delays = _delays(retries)
    while True:
        try:
            with open_stream() as stream:
                yield from stream.batches()
        except LMStudioUnreachableError:
            delay = next(delays)
            if delay is None:
                raise
            sleep(delay)
        else:
            return


async def abatches(
    open_stream: "Callable[[], Awaitable[AsyncPredictionStream]]", retries: int
) -> "AsyncGenerator[list[PredictionEvent]]":
    """Yield the events of a prediction as they come; closing this stops the server."""
    delays = _delays(retries)
    while True:
        try:
            async with await open_stream() as stream:
                async for batch in stream.batches():
                    yield batch
        except LMStudioUnreachableError:
            delay = next(delays)
            if delay is None:
                raise
            await asleep(delay)
        else:
            return


def events(open_stream: "Callable[[], PredictionStream]", retries: int) -> "Generator[PredictionEvent]":
    """Yield the events of a prediction one by one; closing this stops the server."""
    for batch in batches(open_stream, retries):
        yield from batch
