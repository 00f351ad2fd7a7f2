"""`cancel_on_close`: a stream whose end stops what generates it, for agents and other runs of a framework.

A framework finishes a step that it began, although nobody reads its stream any more. So the stream is read in a cancel
scope, and in a thread or a task of its own: its reader waits only for the next item. When the reader stops, the scope
is cancelled first, and then the stream is closed, which has nothing to wait for any more.
"""

import asyncio
import atexit
import contextlib
import os
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future
from contextvars import Context
from functools import partial
from inspect import isawaitable
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias, TypeVar, overload

from lmstudio_integrations._support.text import shortened
from lmstudio_integrations.client.concurrency.cancel_scope import CancelScope
from lmstudio_integrations.client.concurrency.io_thread import uninterrupted
from lmstudio_integrations.client.concurrency.mailboxes import SLICE, callers_loop, current_thread_or_task
from lmstudio_integrations.client.support.user_warnings import users_place
from lmstudio_integrations.errors import (
    LMStudioCancelledError,
    LMStudioConnectionLostError,
    LMStudioRuntimeError,
    LMStudioValueError,
)

ItemT = TypeVar("ItemT")
ItemT_co = TypeVar("ItemT_co", covariant=True)


class WorkflowRun(Protocol[ItemT_co]):
    """A run of a workflow that has begun, as LlamaIndex's `agent.run(…)` returns."""

    def stream_events(self) -> AsyncIterable[ItemT_co]:
        """Return its events."""
        ...

    def cancel_run(self) -> Awaitable[object]:
        """Stop it."""
        ...


AsyncStreamSource: TypeAlias = (
    AsyncIterable[ItemT] | WorkflowRun[ItemT] | Callable[[], AsyncIterable[ItemT] | WorkflowRun[ItemT]]
)
StreamSource: TypeAlias = Iterable[ItemT] | Callable[[], Iterable[ItemT]]
"""A stream, or what begins one."""


@overload
def cancel_on_close(stream: AsyncStreamSource[ItemT]) -> "AsyncCancellableStream[ItemT]": ...
@overload
def cancel_on_close(stream: StreamSource[ItemT]) -> "CancellableStream[ItemT]": ...


def cancel_on_close(stream: Any) -> Any:
    """Return a stream with the same items that stops its models when it is closed before its end.

    It is closed at the end of its `with` or `async with` block, by `close()` or `aclose()`, and when nothing refers to
    it any more; while it is read, also by Ctrl-C, and when its task is cancelled, as web frameworks do in async
    endpoints when a client disconnects. Then all predictions and other calls of this package end that were made by the
    stream, in any thread or task that has its context, and new ones fail with `LMStudioCancelledError`. A tool that
    runs is not stopped; `close()`, `aclose()` and the end of the block wait for it.

    A stream that is read in another one is a part of it; anyone may close one, from anywhere, and only what it calls
    itself does not wait for its end; a task that lives on after that no longer belongs to it, but a thread still does.

    Args:
        stream: What an agent, a graph or a chain streams, or a function that begins something and returns its stream,
            such as `lambda: agent.run(…)` of LlamaIndex. The run itself may be given, too; then only its own model
            stops, and not what its sync tools call. It is read in a thread or a task of its own, one item at a time.

    Raises:
        LMStudioValueError: If it is no stream, or the stream of a run that has begun.

    Example:
        ```python
        from langchain.agents import create_agent
        from langchain_core.messages import HumanMessage

        import lmstudio_integrations as lms
        from lmstudio_integrations.langchain import ChatLMStudio

        agent = create_agent(ChatLMStudio(model="qwen/qwen3-4b"))
        run = agent.stream({"messages": [HumanMessage("Count to a thousand.")]}, stream_mode="messages")
        with lms.cancel_on_close(run) as chunks:
            for chunk in chunks:
                print(chunk)
        ```
    """
    what = getattr(stream, "__qualname__", type(stream).__qualname__)
    file, line, _ = users_place()
    scope = CancelScope(f"the stream that it belongs to, cancel_on_close({what}) at {Path(file).name}:{line}")
    context = scope.context()
    if callable(stream):
        stream = context.run(stream)
    elif getattr(stream, "__qualname__", "").endswith(_BEGUN_BEFORE):
        raise LMStudioValueError(
            "what this stream shows has begun before; pass cancel_on_close(lambda: agent.run(question)), or another "
            "function that begins it: cancel_on_close(lambda: engine.stream_chat(question).response_gen)"
        )
    if hasattr(stream, "cancel_run"):
        return AsyncCancellableStream(stream.stream_events(), scope, context, stream.cancel_run)
    if hasattr(stream, "__aiter__"):
        return AsyncCancellableStream(stream, scope, context)
    if hasattr(stream, "__iter__") and not isinstance(stream, str):
        return CancellableStream(stream, scope, context)
    remedy = "; await it first" if isawaitable(stream) else ""
    raise LMStudioValueError(f"the stream must be an iterator; got {shortened(repr(stream))}{remedy}")


_BEGUN_BEFORE = (".stream_events", ".response_gen", ".async_response_gen")
"""Names of LlamaIndex's streams of what runs already: in the tasks of a workflow, or in what writes to a memory."""


class _Closable:
    """What both kinds of streams know: who has closed it before its end, and whether that is complete."""

    _is_over = True
    """Whether it was read to its end, or is closed; until it is made, too."""
    _closed_by: object | None = None
    """The thread or task, until another one was told: it must not take that for the end."""

    def __init__(self, scope: CancelScope, context: Context, when_collected: Callable[[], None]) -> None:
        self._scope = scope
        self._context = context
        # The collector calls it before it finalizes a generator that it finds together with the stream, which may wait
        # for the models. It refers to nothing of a program, so that it keeps none of that alive.
        self._when_collected = weakref.finalize(self, when_collected)
        self._when_collected.atexit = False
        self._is_over = False

    def _finish(self) -> None:
        self._is_over = True
        self._when_collected.detach()

    def _ended(self, end: type[Exception]) -> Exception:
        """Return what ends a loop over the stream."""
        return end() if self._closed_by in {None, current_thread_or_task()} else self._cancelled()

    def _cancelled(self) -> LMStudioCancelledError:
        self._closed_by = None
        return self._scope.error()


class CancellableStream(_Closable, Iterator[ItemT]):
    """A stream that stops its models when it is closed before its end; see `cancel_on_close`."""

    _is_closed = False
    """Whether it was closed before its end."""
    _closing: "_Job | None" = None

    def __init__(self, stream: Iterable[ItemT], scope: CancelScope, context: Context) -> None:
        self._items = iter(stream)
        self._process = os.getpid()
        self._jobs: _Jobs = SimpleQueue()
        super().__init__(scope, context, partial(_cancel, scope, self._jobs))
        # What waits in it for a framework's threads cannot be interrupted.
        uninterrupted(partial(_start, self._jobs, weakref.ref(self)))

    def __next__(self) -> ItemT:
        self._scope.join()
        if self._is_over:
            raise self._ended(StopIteration)
        if os.getpid() != self._process:
            raise LMStudioConnectionLostError(
                "the process was forked while this stream was open; make it again", retryable=False
            )
        try:
            reading = _Job(self._jobs, partial(self._context.run, next, self._items, _END))
            is_done = reading.wait()
        except BaseException:
            self._stop()
            raise
        if self._is_closed:  # by another thread
            raise self._cancelled()
        if not is_done:  # another thread has read it to its end
            raise self._ended(StopIteration)
        if reading.error is not None or reading.result is _END:
            self._finish()
            self._jobs.put(None)
        item: ItemT = reading.outcome()
        if item is _END:
            raise StopIteration
        return item

    def close(self) -> None:
        """Stop the models, and wait until the stream is closed.

        Any thread may call it; one that reads gets `LMStudioCancelledError`. What the stream itself calls, such as a
        tool, does not wait: the stream would wait for it as well.
        """
        self._stop()
        if self._closing is not None and not self._scope.is_callers and self._closing.wait():
            with contextlib.suppress(LMStudioCancelledError):  # a framework may raise what its steps have raised
                self._closing.outcome()

    def _stop(self) -> None:
        if not self._is_over:
            uninterrupted(partial(self._stop_for, current_thread_or_task()))

    def _stop_for(self, closer: object) -> None:
        self._finish()
        self._is_closed, self._closed_by = True, closer
        self._scope.cancel()
        if os.getpid() == self._process:  # a forked child has no such thread
            run: Callable[..., object] = self._context.run
            self._closing = _Job(self._jobs, partial(run, _close, self._items, self._scope))
            self._jobs.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._is_over or os.getpid() != self._process:
            return
        if self._when_collected.alive:
            self._stop_for(None)
        else:  # the collector closes what is read, here and now
            with contextlib.suppress(Exception):
                _close(self._items, self._scope)


_END: Any = object()


class _Job:
    """What the thread of a stream does next, and how it ended.

    It takes none of the locks that are written in Python: whoever waits may be interrupted at any instant, and a
    finalizer may run anywhere.

    Args:
        jobs: What the thread takes it from.
        work: Does it.

    Attributes:
        result: What the work returned.
        error: What it raised.
    """

    result: Any = None
    error: BaseException | None = None

    def __init__(self, jobs: "_Jobs", work: Callable[[], object]) -> None:
        self._jobs = jobs
        self._work = work
        self._is_done = False
        self._signal: SimpleQueue[None] = SimpleQueue()
        jobs.put(self)

    def run(self) -> None:
        """Do it."""
        try:
            self.result = self._work()
        except BaseException as error:  # noqa: BLE001 - who waits for it raises it
            self.error = error
        self._is_done = True
        self._signal.put(None)

    def wait(self) -> bool:
        """Wait until it is done, and return whether it is, or whether the thread has ended before.

        In slices: Ctrl-C cannot interrupt a longer wait on Windows.
        """
        while not self._is_done and self._jobs in _threads:
            with contextlib.suppress(Empty):
                self._signal.get(timeout=SLICE)
        self._signal.put(None)  # for others who wait
        return self._is_done

    def outcome(self) -> Any:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result


_Jobs: TypeAlias = "SimpleQueue[_Job | None]"


def _start(jobs: _Jobs, stream: "weakref.ref[CancellableStream[Any]]") -> None:
    thread = Thread(target=_work, args=[jobs], name="lmstudio-cancel-on-close", daemon=True)
    _threads[jobs] = thread, stream  # before it may end
    try:
        thread.start()
    except RuntimeError:  # at the end of the process, no thread can be started any more
        _threads.pop(jobs)
        raise


def _work(jobs: _Jobs) -> None:
    """Do one job after the other, in a thread."""
    for job in iter(jobs.get, None):
        job.run()
        del job  # and what it has read, while the next one is waited for
    _threads.pop(jobs, None)


_threads: "dict[_Jobs, tuple[Thread, weakref.ref[CancellableStream[Any]]]]" = {}
"""The threads that read streams, and those, by what they take their jobs from."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.clear)  # a child has none of them


@atexit.register
def _end_threads() -> None:
    """Close each stream that is open when the process exits, while what it waits for can still run."""
    for jobs, (thread, stream) in list(_threads.items()):
        is_open = stream()
        if is_open is not None:
            is_open._stop()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - of this module
        jobs.put(None)
        thread.join()


def _cancel(scope: CancelScope, jobs: _Jobs) -> None:
    scope.cancel()
    jobs.put(None)


def _close(items: Iterator[Any], scope: CancelScope) -> None:
    close: Callable[[], object] | None = getattr(items, "close", None)
    try:
        if close is not None:
            close()
    finally:
        scope.end()


class AsyncCancellableStream(_Closable, AsyncIterator[ItemT]):
    """A stream that stops its models when it is closed before its end; see `cancel_on_close`."""

    _closing: Future[None] | None = None

    def __init__(
        self,
        stream: AsyncIterable[ItemT],
        scope: CancelScope,
        context: Context,
        cancel_run: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._stream = stream
        self._cancel_run = cancel_run
        # A run has begun in a loop, and must be cancelled there, also if it was never read.
        self._loop = None if cancel_run is None else callers_loop()
        self._requests: asyncio.Queue[asyncio.Future[ItemT]] = asyncio.Queue()
        # One task reads all items, because what the stream enters in a task it must also leave there.
        self._task: Any = None
        super().__init__(scope, context, scope.cancel)

    async def __anext__(self) -> ItemT:
        self._scope.join()
        if self._is_over:
            raise self._ended(StopAsyncIteration)
        loop = callers_loop()
        if self._loop not in (None, loop):
            raise LMStudioRuntimeError(
                "this stream was started in another event loop; read it there, or make a new stream in this loop"
            )
        self._loop = loop
        if self._task is None:
            self._task = self._context.run(loop.create_task, _read(self._stream, self._requests, self._scope))
            self._task._log_destroy_pending = False  # noqa: SLF001 - it may be collected together with the stream
        if self._task.done():
            raise StopAsyncIteration
        request: asyncio.Future[ItemT] = loop.create_future()
        self._requests.put_nowait(request)
        try:
            return await request
        except Exception:
            self._finish()
            self._closed_by = None
            raise
        except BaseException:
            self._stop()
            raise

    async def aclose(self) -> None:
        """Stop the models, and wait until the stream is closed.

        Any task may call it, in any event loop; one that reads gets `LMStudioCancelledError`. What the stream itself
        calls does not wait. In another loop, nobody waits for one that does not run.
        """
        self._stop()
        loop = self._loop
        if loop is None or self._scope.is_callers or not loop.is_running():
            return
        end: Any = None if self._closing is None else asyncio.wrap_future(self._closing)
        if end is None and loop is callers_loop():  # it has ended by itself
            end = self._task
        if end is not None:
            await asyncio.wait([end])
            if not end.cancelled():
                end.result()

    def _stop(self) -> None:
        """Stop the models and the reading."""
        if self._is_over:
            return
        self._finish()
        self._closed_by = current_thread_or_task()
        if self._loop is not None:
            closing: Future[None] = Future()
            with contextlib.suppress(RuntimeError):  # the loop may be closed
                self._loop.call_soon_threadsafe(_end, closing, self._task, self._scope, self._cancel_run)
                self._closing = closing
        if self._cancel_run is None or self._closing is None:
            self._scope.cancel()
        if self._closing is None:  # nothing runs that could end it later
            self._scope.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self._is_over:
            if not self._when_collected.alive:  # the collector ends the task as well
                self._task = None
            self._stop()


def _end(
    closing: Future[None],
    reader: "asyncio.Task[None] | None",
    scope: CancelScope,
    cancel_run: Callable[[], Awaitable[object]] | None,
) -> None:
    """End a stream in its loop. A run is cancelled before its models, whose errors it would report."""

    async def end() -> None:
        try:
            if cancel_run is not None:
                await cancel_run()
                scope.cancel()
            if reader is not None:
                await asyncio.wait([reader])
                if not reader.cancelled():
                    reader.result()
        finally:
            scope.end()

    def ended(_: object) -> None:
        _endings.discard(ending)
        if ending.cancelled():
            closing.cancel()
        elif (error := ending.exception()) is not None:
            closing.set_exception(error)
        else:
            closing.set_result(None)

    if reader is not None:
        reader.cancel()
    ending = asyncio.ensure_future(end())
    _endings.add(ending)
    ending.add_done_callback(ended)


_endings: set[asyncio.Future[None]] = set()
"""What ends streams: a loop does not keep its tasks alive."""


async def _read(
    stream: AsyncIterable[ItemT], requests: "asyncio.Queue[asyncio.Future[ItemT]]", scope: CancelScope
) -> None:
    """Read a stream, one item for each request, until its end."""
    items = aiter(stream)
    close: Callable[[], Awaitable[object]] | None = getattr(items, "aclose", None)
    end: Exception = StopAsyncIteration()
    try:
        while True:
            request = await requests.get()
            try:
                item = await anext(items)
            except Exception as error:  # noqa: BLE001 - who requested it raises it
                _fail(request, error)
                return
            except BaseException:
                end = scope.error()
                _fail(request, end)
                raise
            if not request.done():
                request.set_result(item)
    except GeneratorExit:  # the collector ends the task, and Python closes what it reads
        close = None
        raise
    finally:
        try:
            if close is not None:
                with contextlib.suppress(LMStudioCancelledError):  # a framework may raise what its steps have raised
                    await close()
        finally:
            while not requests.empty():  # those of other tasks that read
                _fail(requests.get_nowait(), end)


def _fail(request: asyncio.Future[Any], error: Exception) -> None:
    if not request.done():
        request.set_exception(error)
