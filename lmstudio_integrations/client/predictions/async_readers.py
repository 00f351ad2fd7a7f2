"""Iterators over a prediction for coroutines: its batches, events or fragments. `responses.py` returns them."""

from typing import Self

from lmstudio_integrations.client.concurrency.flows import arun
from lmstudio_integrations.client.predictions.prediction import Prediction
from lmstudio_integrations.types.results import LlmPredictionFragment, PredictionEvent


class AsyncReader:
    """An iterator over a prediction. Once it was read from, dropping it stops the generation on the server.

    It is a class, because the `finally` of an async generator that is not exhausted runs late, or never.
    """

    def __init__(self, prediction: Prediction) -> None:
        self._prediction = prediction
        self._ready = prediction.ready
        self._was_read = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._prediction.summary}>"

    def __aiter__(self) -> Self:
        return self

    async def _fill(self) -> None:
        if not await arun(self._prediction.advance()):
            raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop the generation and discard the rest. Any other reader gets `LMStudioCancelledError`."""
        self._prediction.close()

    def __del__(self) -> None:
        if self._was_read:
            self._prediction.close_unless_reading()


class AsyncBatches(AsyncReader):
    """The events of a prediction, in the batches in which they arrived."""

    async def __anext__(self) -> list[PredictionEvent]:
        ready = self._ready
        if not ready:
            await self._fill()
        self._was_read = True
        batch = list(ready)
        ready.clear()
        return batch


class AsyncEvents(AsyncReader):
    """The events of a prediction, in order."""

    async def __anext__(self) -> PredictionEvent:
        if not self._ready:
            await self._fill()
        self._was_read = True
        return self._ready.popleft()


class AsyncFragments(AsyncReader):
    """The text fragments of a prediction."""

    async def __anext__(self) -> LlmPredictionFragment:
        ready = self._ready
        while True:
            while ready:
                event = ready.popleft()
                if type(event) is LlmPredictionFragment:
                    self._was_read = True
                    return event
            await self._fill()
