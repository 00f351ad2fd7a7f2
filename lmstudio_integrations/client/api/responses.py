"""The streams of both clients. They are written by hand, because they are read in different ways.

Generators read for threads. Coroutines read with the iterators of `client/predictions/async_readers.py`.
"""

from collections.abc import Awaitable, Coroutine, Generator, Iterator
from types import TracebackType
from typing import Any, Self

from lmstudio_integrations.client.concurrency.flows import arun, run
from lmstudio_integrations.client.concurrency.mailboxes import DONE
from lmstudio_integrations.client.predictions.async_readers import AsyncBatches, AsyncEvents, AsyncFragments
from lmstudio_integrations.client.predictions.prediction import Prediction
from lmstudio_integrations.types.config import LlmLoadModelConfig, LlmPredictionConfig
from lmstudio_integrations.types.models import LlmInstanceInfo
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    LlmPredictionStats,
    PredictionEvent,
    PredictionResult,
)


class BaseStream:
    """What the streams of both clients share."""

    def __init__(self, prediction: Prediction) -> None:
        self._prediction = prediction

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._prediction.summary}>"

    def result(self) -> PredictionResult:
        """Return the result of a stream that was read to its end, without waiting.

        Raises:
            LMStudioRuntimeError: If it was not read to its end.
            LMStudioCancelledError: If it was closed before its end.
            Exception: The error that ended it.
        """
        return self._prediction.result()

    @property
    def stats(self) -> LlmPredictionStats:
        """The stats of the finished prediction."""
        return self.result().stats

    @property
    def model_info(self) -> LlmInstanceInfo:
        """The info of the instance that responded."""
        return self.result().model_info

    @property
    def load_config(self) -> LlmLoadModelConfig:
        """The settings that the instance was loaded with."""
        return self.result().load_config

    @property
    def prediction_config(self) -> LlmPredictionConfig:
        """The settings that the prediction ran with."""
        return self.result().prediction_config


class PredictionStream(BaseStream):
    """A running prediction. Iterate over it for its text fragments, or over `events()` for all events.

    Ending the iteration early stops the generation on the server.
    """

    def _fill(self) -> bool:
        return run(self._prediction.advance())

    def batches(self) -> Generator[list[PredictionEvent]]:
        """Return all events in the batches in which they arrived; cheaper than one by one."""
        return self._prediction.batches()

    def events(self) -> Iterator[PredictionEvent]:
        """Yield all events in order: fragments, tool calls, progress, and the end."""
        ready = self._prediction.ready
        try:
            while ready or self._fill():
                yield ready.popleft()
        finally:
            self._prediction.close_unless_reading()

    def __iter__(self) -> Iterator[LlmPredictionFragment]:
        for event in self.events():
            if type(event) is LlmPredictionFragment:
                yield event

    def __next__(self) -> LlmPredictionFragment:
        ready = self._prediction.ready
        while ready or self._fill():
            event = ready.popleft()
            if type(event) is LlmPredictionFragment:
                return event
        raise StopIteration

    def start(self) -> None:
        """Send the request now, not with the first read. Waits for the model, but not for its response.

        Raises:
            LMStudioRuntimeError: If the stream was started or has ended.
        """
        run(self._prediction.start())

    def wait_for_result(self) -> PredictionResult:
        """Read the stream to its end and return the result."""
        return run(self._prediction.to_end())

    def cancel(self) -> None:
        """Stop the generation on the server, without waiting. Read on to get what has arrived, then call `result()`.

        Before the model is loaded, this stops the load, and there is no result.
        """
        self._prediction.cancel()

    def close(self) -> None:
        """Stop the generation and discard the rest. Any other reader gets `LMStudioCancelledError`."""
        self._prediction.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncPredictionStream(BaseStream):
    """A running prediction. Iterate over it for its text fragments, or over `events()` for all events.

    Ending the iteration early stops the generation on the server. Awaiting it returns the stream itself.
    """

    def __init__(self, prediction: Prediction) -> None:
        super().__init__(prediction)
        self._fragments = AsyncFragments(prediction)

    def batches(self) -> AsyncBatches:
        """Return an iterator over all events, in the batches in which they arrived."""
        return AsyncBatches(self._prediction)

    def events(self) -> AsyncEvents:
        """Return an iterator over all events: fragments, tool calls, progress, and the end."""
        return AsyncEvents(self._prediction)

    def __aiter__(self) -> AsyncFragments:
        return AsyncFragments(self._prediction)

    def __anext__(self) -> Coroutine[Any, Any, LlmPredictionFragment]:
        return self._fragments.__anext__()

    def __await__(self) -> Generator[Any, None, Self]:
        yield from ()
        return self

    async def start(self) -> None:
        """Send the request now, not with the first read. Waits for the model, but not for its response.

        Raises:
            LMStudioRuntimeError: If the stream was started or has ended.
        """
        await arun(self._prediction.start())

    async def wait_for_result(self) -> PredictionResult:
        """Read the stream to its end and return the result."""
        return await arun(self._prediction.to_end())

    def cancel(self) -> Awaitable[None]:
        """Stop the generation on the server. Works with and without `await`. Read on to get what has arrived.

        Then call `result()`. Before the model is loaded, this stops the load, and there is no result.
        """
        self._prediction.cancel()
        return DONE

    async def aclose(self) -> None:
        """Stop the generation and discard the rest. Any other reader gets `LMStudioCancelledError`."""
        self._prediction.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
