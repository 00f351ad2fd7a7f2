"""Running the tools of one round: in threads, or as coroutines. A tool that fails is told to the model."""

import asyncio
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context

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
    if job.tool is None:
        return
    with _settling(job):
        if job.tool.is_async:
            # A loop of its own in a thread of its own: this thread may have one that is running.
            with ThreadPoolExecutor(1) as aside:
                job.succeed(aside.submit(asyncio.run, job.tool.implementation(**job.arguments)).result())
        else:
            job.succeed(job.tool.implementation(**job.arguments))


async def _arun(job: ToolJob) -> None:
    if job.tool is None:
        return
    with _settling(job):
        if job.tool.is_async:
            job.succeed(await job.tool.implementation(**job.arguments))
        else:
            await asyncio.to_thread(_run, job)


@contextmanager
def _settling(job: ToolJob) -> Generator[None]:
    """Keep what a tool raises, in the thread where it does: no future can hold a `StopIteration`."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the model is told
        job.failure = error
