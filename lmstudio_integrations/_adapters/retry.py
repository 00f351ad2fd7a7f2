"""Making a call again where the caller has seen nothing of the first attempt: `max_retries`.

That is so when no server answered, and when the connection was lost before anything was delivered. Nothing else is
ever repeated here: the client loads models again by itself.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from typing import TYPE_CHECKING, TypeVar

from lmstudio_integrations.errors import (
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioTimeoutError,
    LMStudioUnreachableError,
)
from lmstudio_integrations.types.results import PromptProgress

if TYPE_CHECKING:
    from lmstudio_integrations.client.asynchronous import AsyncPredictionStream
    from lmstudio_integrations.client.sync import PredictionStream
    from lmstudio_integrations.types.results import PredictionEvent, PredictionResult

T = TypeVar("T")

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 8.0
"""Seconds before the first repetition, doubled each time, and the most."""

sleep = time.sleep
asleep = asyncio.sleep


class _Attempts:
    """Counts the attempts of one call. `retries` may follow the first."""

    def __init__(self, retries: int) -> None:
        self._delays: Iterator[float] = (min(_FIRST_DELAY * 2**attempt, _LONGEST_DELAY) for attempt in range(retries))

    def delay_after(self, error: LMStudioError) -> float:
        """Return the seconds to wait before the next attempt; raise the error where there is none."""
        delay = next(self._delays, None) if _is_retryable(error) else None
        if delay is None:
            raise error
        return delay


def _is_retryable(error: LMStudioError) -> bool:
    match error:
        case LMStudioUnreachableError():
            return True
        case LMStudioConnectionLostError():
            return error.retryable
        case LMStudioTimeoutError():
            return error.timeout_name == "connect_timeout"  # nothing was sent
        case _:
            return False


def _delivers(batch: "list[PredictionEvent]") -> bool:
    """Whether the caller sees anything of some events; progress only reaches callbacks, see `retryable`."""
    return any(type(event) is not PromptProgress for event in batch)


def repeat(call: Callable[[], T], retries: int) -> T:
    """Return what a call returns."""
    attempts = _Attempts(retries)
    while True:
        try:
            return call()
        except LMStudioError as error:
            delay = attempts.delay_after(error)
        sleep(delay)


async def arepeat(call: Callable[[], Awaitable[T]], retries: int) -> T:
    """Return what a call returns."""
    attempts = _Attempts(retries)
    while True:
        try:
            return await call()
        except LMStudioError as error:
            delay = attempts.delay_after(error)
        await asleep(delay)


def result_of(open_stream: "Callable[[], PredictionStream]", retries: int) -> "PredictionResult":
    """Return a prediction at its end. The client generates again by itself if the model was unloaded meanwhile."""

    def attempt() -> "PredictionResult":
        with open_stream() as stream:
            return stream.wait_for_result()

    return repeat(attempt, retries)


async def aresult_of(open_stream: "Callable[[], Awaitable[AsyncPredictionStream]]", retries: int) -> "PredictionResult":
    """Return a prediction at its end; see `result_of`."""

    async def attempt() -> "PredictionResult":
        async with await open_stream() as stream:
            return await stream.wait_for_result()

    return await arepeat(attempt, retries)


def batches(open_stream: "Callable[[], PredictionStream]", retries: int) -> "Generator[list[PredictionEvent]]":
    """Yield the events of a prediction as they come; closing this stops the server."""
    attempts, delivered = _Attempts(retries), False
    while True:
        try:
            with open_stream() as stream:
                for batch in stream.batches():
                    delivered = delivered or _delivers(batch)
                    yield batch
        except LMStudioError as error:
            if delivered:
                raise
            delay = attempts.delay_after(error)
        else:
            return
        sleep(delay)


async def abatches(
    open_stream: "Callable[[], Awaitable[AsyncPredictionStream]]", retries: int
) -> "AsyncGenerator[list[PredictionEvent]]":
    """Yield the events of a prediction as they come; closing this stops the server."""
    attempts, delivered = _Attempts(retries), False
    while True:
        try:
            async with await open_stream() as stream:
                async for batch in stream.batches():
                    delivered = delivered or _delivers(batch)
                    yield batch
        except LMStudioError as error:
            if delivered:
                raise
            delay = attempts.delay_after(error)
        else:
            return
        await asleep(delay)
