"""Run the tools of `act`, in threads or as tasks, and report their calls while the model writes them.

Both runners are steps of the flow in `act.py`, which starts the tools and waits for those that have ended. The model
gets the error of a tool that fails.
"""

import asyncio
import inspect
import json
import queue
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

from lmstudio_integrations._support.secrets import redact_members
from lmstudio_integrations._support.text import dumps, shortened
from lmstudio_integrations._support.threads import run_in_thread
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.concurrency.mailboxes import SLICE
from lmstudio_integrations.errors import LMStudioToolCallError
from lmstudio_integrations.types.functions import ToolCallResultPart, ToolFunctionDef
from lmstudio_integrations.types.plugins import ToolContent
from lmstudio_integrations.types.results import (
    ToolCallArguments,
    ToolCallEnd,
    ToolCallEvent,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)

REQUEST_CALLBACKS = frozenset(
    f"on_tool_call_request_{step}" for step in ("start", "name_received", "argument_fragment", "end", "failure")
)
"""The callbacks that it calls: each call starts once, and ends or fails once."""


@dataclass(slots=True)
class ToolJob:
    """One tool call, and what came of it.

    Attributes:
        call_id: The number of the call within its `act`.
        call: The model's request.
        tool: The tool; `None` if there is none of that name.
        runs_alone: Whether no other tool runs beside it.
        arguments: Its checked arguments, and its context.
        problem: Why the request is invalid.
        answer: The text for the model in place of running the tool, because the call was made too often.
        outcome: What the function returned, as JSON.
        failure: The exception of the function, or of writing its result as JSON; replaces the outcome.
        reply: The result for the model.
    """

    call_id: int
    call: ToolCallEnd
    tool: ToolFunctionDef | None
    runs_alone: bool
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    problem: LMStudioToolCallError | None = None
    answer: str | None = None
    outcome: str = ""
    failure: BaseException | None = None
    reply: ToolCallResultPart | None = None

    @property
    def is_async(self) -> bool:
        """Whether the function is known to be a coroutine function."""
        return self.tool is not None and self.tool.is_async

    @property
    def runs(self) -> bool:
        """Whether there is a function to call; otherwise the program gets the call."""
        return self.tool is not None and self.tool.implementation is not None

    def call_function(self) -> Any:
        assert self.tool is not None, "only valid calls run"
        assert self.tool.implementation is not None, "only functions run"
        return self.tool.implementation(**self.arguments)

    def succeed(self, value: Any) -> None:
        """Record the value that the function returned: JSON, or the text of what an MCP server has sent.

        Raises:
            ValueError: If it cannot be written as JSON.
        """
        self.outcome = value.text if isinstance(value, ToolContent) else dumps(value)


class ToolCallReports:
    """Calls the callbacks of one round.

    Args:
        call_back: A flow that calls a callback by its name.
        problem_of: Returns what is wrong with a complete call.
        first_id: The number of the round's first call.
    """

    def __init__(
        self,
        call_back: Callable[..., Flow[Any]],
        problem_of: Callable[[ToolCallEnd], LMStudioToolCallError | None],
        first_id: int,
    ) -> None:
        self._call_back = call_back
        self._problem_of = problem_of
        self._id = first_id - 1
        self._is_open = self._is_named = self._has_arguments = False

    def report(self, event: ToolCallEvent) -> Flow[None]:
        match event:
            case ToolCallStart():
                yield from self.fail("the model gave the call up for another one")
                yield from self._open(event)
            case ToolCallName():
                if self._is_open:
                    self._is_named = True
                    yield from self._emit("name_received", event.name)
            case ToolCallArguments():
                if self._is_open:
                    self._has_arguments = True
                    yield from self._emit("argument_fragment", event.content)
            case ToolCallEnd():
                yield from self._end(event)
            case ToolCallFailed():
                if not self._is_open:
                    yield from self._open(ToolCallStart())
                yield from self._close("failure", error_of(event))

    def fail(self, reason: str) -> Flow[None]:
        """Report that the call that the model is writing remains incomplete, if there is one."""
        if self._is_open:
            yield from self._close("failure", LMStudioToolCallError(reason))

    def _open(self, event: ToolCallStart) -> Flow[None]:
        self._id += 1
        self._is_open, self._is_named, self._has_arguments = True, False, False
        yield from self._emit("start", event)

    def _end(self, event: ToolCallEnd) -> Flow[None]:
        """Report a complete call, and first what the server has not streamed of it."""
        if not self._is_open:
            yield from self._open(ToolCallStart(event.id))
        if not self._is_named:
            yield from self._emit("name_received", event.name)
        if not self._has_arguments:
            yield from self._emit("argument_fragment", json.dumps(event.arguments or {}, indent=2, ensure_ascii=False))
        problem = self._problem_of(event)
        yield from self._close("end", event) if problem is None else self._close("failure", problem)

    def _close(self, step: str, argument: Any) -> Flow[None]:
        self._is_open = False
        yield from self._emit(step, argument)

    def _emit(self, step: str, argument: Any) -> Flow[None]:
        yield from self._call_back(f"on_tool_call_request_{step}", self._id, argument)


def error_of(call: ToolCallFailed) -> LMStudioToolCallError:
    """Return the error about a call that the server could not parse."""
    reason = call.error.get("cause") or call.error.get("title") or "no reason given"
    return LMStudioToolCallError(
        f"Failed to parse tool call request: {shortened(redact_members(str(reason)))}", raw_content=call.raw_content
    )


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
