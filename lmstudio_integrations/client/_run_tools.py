"""Running the tools of one round: in threads, or as coroutines. A tool that fails is told to the model."""

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
    """Call the function; return what it returned if that must be awaited, else take it."""
    if job.tool is None:
        return None
    with _settling(job):
        result = job.tool.implementation(**job.arguments)
        if inspect.isawaitable(result):
            return result
        job.succeed(result)
    return None


async def _finish(job: ToolJob, awaitable: Awaitable[Any]) -> None:
    with _settling(job):
        job.succeed(await awaitable)


@contextmanager
def _settling(job: ToolJob) -> Generator[None]:
    """Keep what a tool raises, in the thread where it does: no future can hold a `StopIteration`.

    A `CancelledError` too: where it is the whole round that is cancelled, the group of its tasks raises it again.
    """
    try:
        yield
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the model is told
        job.failure = error


def _run_aside(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a thread and a loop of its own: this thread may have a loop that is running.

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
            loop.call_soon_threadsafe(_cancel_all, loop)
        raise


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


def _start(function: Callable[[], T]) -> "Future[T]":
    """Call a function in a thread of its own, which nothing has to wait for: neither Ctrl-C nor the end of the process.

    A pool will not do: its threads are waited for when the process ends, and there may be too few of them.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # it cannot be cancelled any more
    context = copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(function))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            future.set_exception(error)

    Thread(target=run, name="lmstudio-tool", daemon=True).start()
    return future
