"""Running the tools of one round: in threads, or as coroutines. A tool that fails is told to the model."""

import asyncio
import inspect
from collections.abc import Awaitable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

from lmstudio_integrations.client._act import ToolJob


def run_jobs(jobs: Sequence[ToolJob], parallel: int | None) -> None:
    """Run tools, `parallel` at once; with one at a time they run in this thread."""
    if parallel == 1:
        for job in jobs:
            _run(job)
        return
    pool = ThreadPoolExecutor(parallel or len(jobs), thread_name_prefix="lmstudio-tool")
    try:
        for running in [pool.submit(copy_context().run, _run, job) for job in jobs]:
            running.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C there is nothing to wait for


async def arun_jobs(jobs: Sequence[ToolJob], parallel: int | None) -> None:
    """Run tools, `parallel` at once; functions that are not async run in threads."""
    room = asyncio.Semaphore(parallel or len(jobs))

    async def run(job: ToolJob) -> None:
        async with room:
            await _arun(job)

    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(run(job))


def _run(job: ToolJob) -> None:
    awaitable = _call(job)
    if awaitable is not None:
        # A loop of its own in a thread of its own: this thread may have one that is running.
        with ThreadPoolExecutor(1) as aside:
            aside.submit(asyncio.run, _finish(job, awaitable)).result()


async def _arun(job: ToolJob) -> None:
    is_async = job.tool is not None and job.tool.is_async
    awaitable = _call(job) if is_async else await asyncio.to_thread(_call, job)
    if awaitable is not None:
        await _finish(job, awaitable)


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
    """Keep what a tool raises, in the thread where it does: no future can hold a `StopIteration`."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the model is told
        job.failure = error
