"""Run the tools of one round of `act`, in threads or as coroutines. The model gets the error of a tool that fails."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from contextvars import copy_context
from threading import Thread
from typing import Any, TypeVar

from lmstudio_integrations.client._act import ToolJob
from lmstudio_integrations.client.transport.waiters import SLICE

T = TypeVar("T")


def run_jobs(jobs: Sequence[ToolJob], parallel: int | None) -> None:
    """Run tools, `parallel` at once; with one at a time, functions that are not async run in this thread."""
    if parallel != 1:
        _run_aside(arun_jobs(jobs, parallel))
        return
    for job in jobs:
        awaitable = _call(job)
        if awaitable is not None:
            _run_aside(_finish(job, awaitable))


async def arun_jobs(jobs: Sequence[ToolJob], parallel: int | None) -> None:
    """Run tools, `parallel` at once; functions that are not async run in threads."""
    room = asyncio.Semaphore(parallel or len(jobs))

    async def run(job: ToolJob) -> None:
        async with room:
            at_once = job.tool is None or job.tool.is_async
            awaitable = _call(job) if at_once else await asyncio.wrap_future(_start(lambda: _call(job)))
            if awaitable is not None:
                await _finish(job, awaitable)

    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(run(job))


def _call(job: ToolJob) -> Awaitable[Any] | None:
    """Call the function; return its result if that must be awaited, else record it."""
    if job.tool is None:
        return None
    with _recording_failure(job):
        result = job.tool.implementation(**job.arguments)
        if inspect.isawaitable(result):
            return result
        job.succeed(result)
    return None


async def _finish(job: ToolJob, awaitable: Awaitable[Any]) -> None:
    with _recording_failure(job):
        job.succeed(await awaitable)


@contextmanager
def _recording_failure(job: ToolJob) -> Generator[None]:
    """Record the exception of a tool in the thread that runs it, because a future cannot hold a `StopIteration`.

    Also a `CancelledError`: if the whole round is cancelled, its task group raises it again.
    """
    try:
        yield
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - sent to the model
        job.failure = error


def _run_aside(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a thread and an event loop of its own, because this thread may run a loop.

    Ctrl-C cancels the coroutine and does not wait for it.
    """
    runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
    loop = runner.get_loop()

    def run() -> None:
        with runner:
            runner.run(coroutine)

    try:
        running = _start(run)
        while not running.done():
            wait([running], SLICE)  # not for longer, because of Ctrl-C on Windows
        running.result()
    except BaseException:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        raise


def _start(function: Callable[[], T]) -> "Future[T]":
    """Call a function in a daemon thread, so that neither Ctrl-C nor the end of the process waits for it.

    A pool would wait for its threads at the end of the process, and might have too few of them.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # from here on it cannot be cancelled
    context = copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(function))
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            future.set_exception(error)

    Thread(target=run, name="lmstudio-tool", daemon=True).start()
    return future
