"""Making a call again where the caller has seen nothing of the first attempt: `max_retries`.

That is so when no server answered, and when the connection was lost before anything was delivered. The client loads
models again by itself, but it cannot know that the fragments of a stream are only gathered here: so a non-streaming
call is also made again when its model was evicted. Nothing else is ever repeated.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from lmstudio_integrations._renewals import renewal_pauses
from lmstudio_integrations.errors import (
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioModelUnloadedError,
    LMStudioTimeoutError,
    LMStudioUnreachableError,
)
from lmstudio_integrations.types.results import PromptProgress

if TYPE_CHECKING:
    from lmstudio_integrations.client.asynchronous import AsyncPredictionStream
    from lmstudio_integrations.client.sync import PredictionStream
    from lmstudio_integrations.types.results import PredictionEvent

T = TypeVar("T")

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 8.0
"""Seconds before the first repetition, doubled each time, and the most."""

sleep = time.sleep
asleep = asyncio.sleep


class _Attempts:
    """Counts the attempts of one call.

    Args:
        retries: How many may follow the first.
        renewals: Seconds to wait before each further attempt after the model was unloaded.
    """

    def __init__(self, retries: int, renewals: Iterable[float] = ()) -> None:
        self._delays: Iterator[float] = (min(_FIRST_DELAY * 2**attempt, _LONGEST_DELAY) for attempt in range(retries))
        self._renewals = iter(renewals)

    def delay_after(self, error: LMStudioError) -> float:
        """Return the seconds to wait before the next attempt; raise the error where there is none."""
        delay: float | None = None
        if isinstance(error, LMStudioModelUnloadedError):
            delay = next(self._renewals, None) if error.retryable else None
        elif _is_retryable(error):
            delay = next(self._delays, None)
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


def repeat(call: Callable[[], T], retries: int, renewals: Iterable[float] = ()) -> T:
    """Return what a call returns."""
    attempts = _Attempts(retries, renewals)
    while True:
        try:
            return call()
        except LMStudioError as error:
            delay = attempts.delay_after(error)
        sleep(delay)


async def arepeat(call: Callable[[], Awaitable[T]], retries: int, renewals: Iterable[float] = ()) -> T:
    """Return what a call returns."""
    attempts = _Attempts(retries, renewals)
    while True:
        try:
            return await call()
        except LMStudioError as error:
            delay = attempts.delay_after(error)
        await asleep(delay)


def accumulate(
    open_stream: "Callable[[], PredictionStream]",
    new: Callable[[], T],
    add: "Callable[[T, list[PredictionEvent]], object]",
    retries: int,
) -> T:
    """Return all events of a prediction, gathered; what came before a connection or the model was lost is dropped."""

    def attempt() -> T:
        result = new()
        for batch in batches(open_stream, 0):
            add(result, batch)
        return result

    return repeat(attempt, retries, renewal_pauses())


async def aaccumulate(
    open_stream: "Callable[[], Awaitable[AsyncPredictionStream]]",
    new: Callable[[], T],
    add: "Callable[[T, list[PredictionEvent]], object]",
    retries: int,
) -> T:
    """Return all events of a prediction, gathered; see `accumulate`."""

    async def attempt() -> T:
        result = new()
        async for batch in abatches(open_stream, 0):
            add(result, batch)
        return result

    return await arepeat(attempt, retries, renewal_pauses())


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
