"""Run the tools of `act`, in threads or as tasks. The model gets the error of a tool that fails.

Both runners are steps of the flow in `tool_loop/act.py`, which starts the tools and waits for those that have ended.
"""

import asyncio
import inspect
import queue
from collections.abc import Awaitable, Coroutine, Generator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

from lmstudio_integrations._support.threads import run_in_thread
from lmstudio_integrations.client.predictions.tool_loop.act import ToolJob
from lmstudio_integrations.client.transport.mailboxes import SLICE


class ThreadRunner:
    """Runs tools for a thread.

    Those that are async run in a thread and an event loop of their own. Others run in the caller's thread, if alone.
    """

    def __init__(self) -> None:
        self._running: set[Future[ToolJob]] = set()  # loops hold tasks weakly
        self._ended: queue.SimpleQueue[Future[ToolJob]] = queue.SimpleQueue()
        self._runner: asyncio.Runner | None = None
        self._loop: asyncio.AbstractEventLoop
        self._serving: Future[None]

    @property
    def mailbox(self) -> Self:
        """Itself."""
        return self

    def start(self, job: ToolJob) -> None:
        if not job.runs_alone or job.is_async:
            self._submit(_run(job))
        elif (awaitable := _call(job)) is not None:
            self._submit(_finish(job, awaitable))
        else:
            ended: Future[ToolJob] = Future()
            ended.set_result(job)
            self._ended.put(ended)

    def wait(self) -> list[ToolJob]:
        """Return a tool that has ended."""
        while True:
            try:
                ended = self._ended.get(timeout=SLICE)  # not for longer, because of Ctrl-C on Windows
            except queue.Empty:
                continue
            self._running.discard(ended)
            return [ended.result()]

    def _submit(self, coroutine: Coroutine[Any, Any, ToolJob]) -> None:
        """Run a coroutine aside, because this thread may run a loop."""
        if self._runner is None:
            self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
            self._loop = self._runner.get_loop()
            self._serving = run_in_thread(partial(self._serve, self._runner))
        running = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._running.add(running)
        running.add_done_callback(self._ended.put)

    def _serve(self, runner: asyncio.Runner) -> None:
        """Run the loop until it is stopped; then cancel what still runs in it."""
        with runner:
            self._loop.run_forever()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is None:
            return
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._loop.stop)  # what still runs in it is cancelled
        while kind is None and not self._serving.done():
            wait([self._serving], SLICE)


class TaskRunner:
    """Runs tools as tasks of the caller's event loop; functions that are not async run in threads."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[ToolJob]] = []

    @property
    def mailbox(self) -> Self:
        """Itself."""
        return self

    def start(self, job: ToolJob) -> None:
        self._tasks.append(asyncio.create_task(_run(job)))

    async def wait(self) -> list[ToolJob]:
        """Return the tools that have ended, at least one."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        ended = [task.result() for task in self._tasks if task in done]
        self._tasks = [task for task in self._tasks if task not in done]
        return ended

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _run(job: ToolJob) -> ToolJob:
    """Run a tool in this loop; one that is not async, in a thread."""
    awaitable = _call(job) if job.is_async else await asyncio.wrap_future(run_in_thread(partial(_call, job)))
    return job if awaitable is None else await _finish(job, awaitable)


def _call(job: ToolJob) -> Awaitable[Any] | None:
    """Call the function; return its result if that must be awaited, else record it."""
    with _recording_failure(job):
        result = job.call_function()
        if inspect.isawaitable(result):
            return result
        job.succeed(result)
    return None


async def _finish(job: ToolJob, awaitable: Awaitable[Any]) -> ToolJob:
    with _recording_failure(job):
        job.succeed(await awaitable)
    return job


@contextmanager
def _recording_failure(job: ToolJob) -> Generator[None]:
    """Record the exception of a tool in the thread that runs it, because a future cannot hold a `StopIteration`.

    Also a `CancelledError`: if `act` is cancelled, nobody waits for the tool any more.
    """
    try:
        yield
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - sent to the model
        job.failure = error
