"""Runs many calls at once, in threads or in tasks. Knows neither models nor settings.

langchain-core finishes a batch before it raises the first error or reacts to Ctrl-C. Here both stop the generations
that still run.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextvars import ContextVar
from functools import partial
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakSet

from langchain_core.runnables.config import ContextThreadPoolExecutor, RunnableConfig, get_config_list

from lmstudio_integrations.client.api.responses import PredictionStream
from lmstudio_integrations.client.support.arguments import list_of, whole_number
from lmstudio_integrations.errors import LMStudioCancelledError

T = TypeVar("T")
InputT = TypeVar("InputT")


class _BatchStreams:
    """The streams of the threads of one batch, which are closed together."""

    def __init__(self) -> None:
        self._streams: WeakSet[PredictionStream] = WeakSet()
        self._closed = False
        self._lock = Lock()

    def add(self, stream: PredictionStream) -> None:
        """Add a stream that was not read yet.

        Raises:
            LMStudioCancelledError: If the batch was stopped.
        """
        with self._lock:
            if self._closed:
                raise LMStudioCancelledError("the batch was stopped before this call began")
            self._streams.add(stream)

    def close(self) -> None:
        """Close all streams, also those that are added later; their readers get `LMStudioCancelledError`."""
        with self._lock:
            self._closed, streams = True, list(self._streams)
        for stream in streams:
            stream.close()

    def run(self, call: Callable[[], T]) -> T:
        """Make a call whose streams belong to this batch."""
        current.set(self)  # each task of the executor has a context of its own
        return call()


current: ContextVar[_BatchStreams | None] = ContextVar("lmstudio_batch", default=None)
"""The batch of this thread, to which each stream is added before it is read; `None` outside of a batch."""


def calls_of(
    invoke: Callable[..., T], inputs: Sequence[InputT], config: Any, kwargs: Mapping[str, Any]
) -> tuple[list[Callable[[], T]], int | None]:
    """Return a call for each input, and how many may run at once, from the arguments of `Runnable.batch`."""
    inputs = list_of(inputs, "the inputs of a batch", of_texts=True)  # a string would be a batch of its characters
    configs = configs_of(inputs, config)
    calls: list[Callable[[], T]] = [
        partial(invoke, each, own, **kwargs) for each, own in zip(inputs, configs, strict=True)
    ]
    return calls, configs[0].get("max_concurrency") if configs else None


def configs_of(inputs: Sequence[Any], config: Any) -> list[RunnableConfig]:
    """Return the config of each input, from the arguments of `Runnable.batch`.

    Raises:
        LMStudioValueError: If `max_concurrency` is not a number of at least 1.
    """
    configs = get_config_list(config, len(inputs)) if inputs else []
    for each in configs[:1]:
        whole_number(each.get("max_concurrency"), "max_concurrency")
    return configs


def run_in_threads(
    calls: Sequence[Callable[[], T]], limit: int | None, *, keep_errors: bool = False
) -> Iterator[tuple[int, T | Exception]]:
    """Make calls in threads; yield the index and the result of each as it ends.

    An error, an interrupt, and closing this iterator stop the others.

    Args:
        calls: The calls.
        limit: How many may run at once.
        keep_errors: Whether an `Exception` counts as a result.
    """
    caught = (Exception,) if keep_errors else ()

    def attempt(call: Callable[[], T]) -> T | Exception:
        try:
            return call()
        except caught as error:
            return error

    if len(calls) == 1:
        yield 0, attempt(calls[0])
        return
    streams = _BatchStreams()
    with ContextThreadPoolExecutor(max_workers=limit) as pool:
        try:
            index_of = {pool.submit(streams.run, partial(attempt, call)): index for index, call in enumerate(calls)}
            for future in as_completed(index_of):
                yield index_of[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            streams.close()
            raise


async def run_in_tasks(
    calls: Sequence[Callable[[], Awaitable[T]]], limit: int | None, *, keep_errors: bool = False
) -> AsyncIterator[tuple[int, T | Exception]]:
    """Make calls in tasks; yield the index and the result of each as it ends. See `run_in_threads`."""
    at_once = asyncio.Semaphore(limit or max(1, len(calls)))
    caught = (Exception,) if keep_errors else ()

    async def attempt(index: int, call: Callable[[], Awaitable[T]]) -> tuple[int, T | Exception]:
        async with at_once:
            try:
                return index, await call()
            except caught as error:
                return index, error

    tasks = [asyncio.ensure_future(attempt(index, call)) for index, call in enumerate(calls)]
    try:
        for done in asyncio.as_completed(tasks):
            yield await done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def results(calls: Sequence[Callable[[], T]], limit: int | None, *, keep_errors: bool = False) -> list[T]:
    """Make calls in threads; return the results in order. With `keep_errors`, some may be exceptions."""
    return _in_order(dict(run_in_threads(calls, limit, keep_errors=keep_errors)))


async def aresults(
    calls: Sequence[Callable[[], Awaitable[T]]], limit: int | None, *, keep_errors: bool = False
) -> list[T]:
    """Make calls in tasks; return the results in order. See `results`."""
    return _in_order({index: result async for index, result in run_in_tasks(calls, limit, keep_errors=keep_errors)})


def _in_order(result_of: Mapping[int, Any]) -> list[Any]:
    return [result_of[index] for index in range(len(result_of))]
