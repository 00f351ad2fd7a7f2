"""Iterators over a prediction for coroutines: its batches, events or fragments. `asynchronous.py` returns them.

A web framework may drop the generator of a response when its client disconnects. If that generator is part of a
reference cycle, only the garbage collector closes it, much later. So a prediction is also closed when the task that
read it has ended and no other task reads on.
"""

from asyncio import Task, current_task
from typing import Any, Self
from weakref import WeakKeyDictionary, WeakSet, ref

from lmstudio_integrations.client.predictions.prediction import Prediction
from lmstudio_integrations.client.support.tracebacks import short_traceback
from lmstudio_integrations.client.transport.flows import arun
from lmstudio_integrations.types.results import LlmPredictionFragment, PredictionEvent

ABANDONED_AFTER = 1.0
"""Seconds within which another task must read on after the end of the task that read a prediction."""


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

    def _record_read(self) -> None:
        self._was_read = True
        prediction, task = self._prediction, current_task()
        if (
            task is not None
            and prediction.is_delivered
            and (prediction.read_by is None or prediction.read_by() is not task)
        ):
            prediction.read_by = ref(task)
            # Not at once: a task that reads only once, like those of `wait_for`, has ended by then and is not watched.
            task.get_loop().call_soon(_watch, prediction.read_by, ref(prediction))

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
            with short_traceback():
                await self._fill()
        self._record_read()
        batch = list(ready)
        ready.clear()
        return batch


class AsyncEvents(AsyncReader):
    """The events of a prediction, in order."""

    async def __anext__(self) -> PredictionEvent:
        if not self._ready:
            with short_traceback():
                await self._fill()
        self._record_read()
        return self._ready.popleft()


class AsyncFragments(AsyncReader):
    """The text fragments of a prediction."""

    async def __anext__(self) -> LlmPredictionFragment:
        ready = self._ready
        while True:
            while ready:
                event = ready.popleft()
                if type(event) is LlmPredictionFragment:
                    self._record_read()
                    return event
            with short_traceback():
                await self._fill()


_predictions: WeakKeyDictionary[Task[Any], WeakSet[Prediction]] = WeakKeyDictionary()
"""What each watched task has read from."""


def _watch(task_ref: ref[Task[Any]], prediction_ref: ref[Prediction]) -> None:
    """Close a prediction after the end of the task that reads it, unless another one reads on."""
    task, prediction = task_ref(), prediction_ref()
    if task is None or prediction is None or (task.done() and not task.cancelled()):
        return
    if task not in _predictions:
        _predictions[task] = WeakSet()
        task.add_done_callback(_wait_for_others)
    _predictions[task].add(prediction)


def _wait_for_others(task: Task[Any]) -> None:
    """Give other tasks time to read on from what a task has read that ended."""
    for prediction in _predictions.pop(task):
        if prediction.read_by is not None and prediction.read_by() is task:
            task.get_loop().call_later(ABANDONED_AFTER, _close_if_abandoned, ref(prediction), prediction.read_by)


def _close_if_abandoned(prediction_ref: ref[Prediction], read_by: ref[Task[Any]]) -> None:
    prediction = prediction_ref()
    if prediction is not None and prediction.read_by is read_by:
        prediction.close_unless_reading(
            f"closed, because the task that read it has ended and no other one read on within {ABANDONED_AFTER:g} s"
        )
