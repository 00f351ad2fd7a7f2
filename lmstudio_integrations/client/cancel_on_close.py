"""`cancel_on_close`: a stream whose end stops what generates it, for agents and other runs of a framework.

A framework finishes a step that it began, although nobody reads its stream any more. So the stream is read in a cancel
scope, and in a thread or a task of its own: its reader waits only for the next item. When the reader stops, the scope
is cancelled first, and then the stream is closed, which has nothing to wait for any more.
"""

import asyncio
import contextlib
import os
from _thread import start_new_thread
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from inspect import isawaitable
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias, TypeVar, overload

from lmstudio_integrations._support.text import shortened
from lmstudio_integrations.client.transport.cancel_scope import CancelScope, cancelled
from lmstudio_integrations.client.transport.mailboxes import SLICE, callers_loop, current_thread_or_task
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
    it any more; while it is read, also by Ctrl-C, and when its task is cancelled, as web frameworks do when a client
    disconnects. Then all predictions and other calls of this package end that were made by the stream, in any thread
    or task, and new ones fail with `LMStudioCancelledError`. A tool that runs is not stopped; `close()`, `aclose()`
    and the end of the block wait for it.

    Args:
        stream: What an agent, a graph or a chain streams, what `agent.run(…)` of LlamaIndex returns, or a function that
            begins something and returns its stream. It is read in a thread or a task of its own, one item at a time.

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
    scope = CancelScope()
    if callable(stream):
        stream = scope.context.run(stream)
    elif getattr(stream, "__qualname__", "").endswith(_BEGUN_BEFORE):
        raise LMStudioValueError(
            "what this stream shows has begun before; pass cancel_on_close(agent.run(question)), or a function that "
            "begins it: cancel_on_close(lambda: engine.stream_chat(question).response_gen)"
        )
    if hasattr(stream, "cancel_run"):
        return AsyncCancellableStream(stream.stream_events(), scope, stream.cancel_run)
    if hasattr(stream, "__aiter__"):
        return AsyncCancellableStream(stream, scope)
    if hasattr(stream, "__iter__") and not isinstance(stream, str):
        return CancellableStream(stream, scope)
    remedy = "; await it first" if isawaitable(stream) else ""
    raise LMStudioValueError(f"the stream must be an iterator; got {shortened(repr(stream))}{remedy}")


_BEGUN_BEFORE = (".stream_events", ".response_gen", ".async_response_gen")
"""Names of LlamaIndex's streams of what runs already: in the tasks of a workflow, or in what writes to a memory."""


class _Closable:
    """Who has closed a stream before its end: nobody else who reads it must take that for the end."""

    _closed_by: object | None = None
    """The thread or task, until another one was told."""

    def _ended(self, end: type[Exception]) -> Exception:
        """Return what ends a loop over the stream."""
        return end() if self._closed_by in {None, current_thread_or_task()} else self._cancelled()

    def _cancelled(self) -> LMStudioCancelledError:
        self._closed_by = None
        return cancelled()


_UNFINISHED: dict[int, Iterator[Any]] = {}
"""What streams read, by the `id` of each. So the garbage collector finalizes a stream, which stops its models, before a
generator that waits for them."""


class CancellableStream(_Closable, Iterator[ItemT]):
    """A stream that stops its models when it is closed before its end; see `cancel_on_close`."""

    def __init__(self, stream: Iterable[ItemT], scope: CancelScope) -> None:
        self._scope = scope
        self._is_over = True
        self._items = iter(stream)
        # What waits in it for a framework's threads cannot be interrupted.
        self._thread = ThreadPoolExecutor(1, "lmstudio-cancel-on-close")
        self._process = os.getpid()
        self._closing: Future[None] | None = None
        self._is_over = False
        _UNFINISHED[id(self)] = self._items

    def __next__(self) -> ItemT:
        if self._is_over:
            raise self._ended(StopIteration)
        if os.getpid() != self._process:
            raise LMStudioConnectionLostError(
                "the process was forked while this stream was open; make it again", retryable=False
            )
        read: Callable[[], Any] = partial(self._scope.context.run, next, self._items, _END)
        try:
            reading = self._thread.submit(read)
        except RuntimeError:
            if self._is_over:  # another thread has just closed it
                raise self._cancelled() from None
            raise
        try:
            while not reading.done():  # in slices: Ctrl-C cannot interrupt a longer wait on Windows
                with contextlib.suppress(TimeoutError):
                    reading.exception(SLICE)
        except BaseException:
            self._stop()
            raise
        if self._is_over:  # another thread has closed it
            raise self._cancelled()
        if reading.exception() is not None or reading.result() is _END:
            self._finish()
            self._thread.shutdown(wait=False)
        item: ItemT = reading.result()
        if item is _END:
            raise StopIteration
        return item

    def close(self) -> None:
        """Stop the models, and wait until the stream is closed.

        Any thread may call it; one that reads gets `LMStudioCancelledError`. What the stream itself calls, such as a
        tool, does not wait: the stream would wait for it as well.
        """
        self._stop()
        if self._closing is not None and not self._scope.is_callers:
            with contextlib.suppress(LMStudioCancelledError):  # a framework may raise what its steps have raised
                self._closing.result()

    def _stop(self) -> None:
        if not self._is_over:
            self._finish()
            self._closed_by = current_thread_or_task()
            self._scope.cancel()
            if os.getpid() == self._process:  # a forked child has no such thread
                self._closing = _close_in(self._thread, self._scope, self._items)

    def _finish(self) -> None:
        self._is_over = True
        _UNFINISHED.pop(id(self), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._is_over and os.getpid() == self._process:
            self._finish()
            self._scope.cancel()
            # In a thread: to submit takes locks, which the code may hold that the collector has interrupted.
            with contextlib.suppress(RuntimeError):  # at the end of the process, no thread can be started any more
                start_new_thread(_close_in, (self._thread, self._scope, self._items))


_END: Any = object()


def _close_in(thread: ThreadPoolExecutor, scope: CancelScope, items: Iterator[Any]) -> Future[None] | None:
    """Close what a thread reads there, as its last work."""
    closing = None
    with contextlib.suppress(RuntimeError):  # at the end of the process, no thread can be started any more
        closing = thread.submit(scope.context.run, _close, items)
    thread.shutdown(wait=False)
    return closing


def _close(items: Iterator[Any]) -> None:
    close: Callable[[], object] | None = getattr(items, "close", None)
    if close is not None:
        close()


class AsyncCancellableStream(_Closable, AsyncIterator[ItemT]):
    """A stream that stops its models when it is closed before its end; see `cancel_on_close`."""

    def __init__(
        self,
        stream: AsyncIterable[ItemT],
        scope: CancelScope,
        cancel_run: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._scope = scope
        self._stream = stream
        self._cancel_run = cancel_run
        # A run has begun in a loop, and must be cancelled there, also if it was never read.
        self._loop = None if cancel_run is None else callers_loop()
        self._requests: asyncio.Queue[asyncio.Future[ItemT]] = asyncio.Queue()
        # One task reads all items, because what the stream enters in a task it must also leave there.
        self._task: asyncio.Task[None] | None = None
        self._is_over = False

    async def __anext__(self) -> ItemT:
        if self._is_over:
            raise self._ended(StopAsyncIteration)
        loop = callers_loop()
        if self._loop not in (None, loop):
            raise LMStudioRuntimeError(
                "this stream was started in another event loop; read it there, or make a new stream in this loop"
            )
        self._loop = loop
        if self._task is None:
            self._task = self._scope.context.run(loop.create_task, _read(self._stream, self._requests))
        if self._task.done():
            raise StopAsyncIteration
        request: asyncio.Future[ItemT] = loop.create_future()
        self._requests.put_nowait(request)
        try:
            return await request
        except Exception:
            self._is_over = True
            self._closed_by = None
            raise
        except BaseException:
            self._stop()
            raise

    async def aclose(self) -> None:
        """Stop the models, and wait until the stream is closed. A task that reads gets `LMStudioCancelledError`.

        What the stream itself calls does not wait.
        """
        stopped = self._stop()
        if self._scope.is_callers:
            return
        if stopped and self._cancel_run is not None:
            await self._cancel_run()
        if self._task is not None:
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

    def _stop(self) -> bool:
        """Stop the models and the reading; return whether that was necessary."""
        if self._is_over:
            return False
        self._is_over = True
        self._closed_by = current_thread_or_task()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed
                self._loop.call_soon_threadsafe(_end, self._task, self._scope, self._cancel_run)
        if self._cancel_run is None:
            self._scope.cancel()
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._stop()


def _end(
    reader: "asyncio.Task[None] | None", scope: CancelScope, cancel_run: Callable[[], Awaitable[object]] | None
) -> None:
    """End a stream in its loop. A run is cancelled before its models, whose errors it would report."""
    if reader is not None:
        reader.cancel()
    if cancel_run is not None:
        ending = asyncio.ensure_future(cancel_run())
        ending.add_done_callback(lambda _: scope.cancel())
        _endings.add(ending)
        ending.add_done_callback(_endings.discard)


_endings: set[asyncio.Future[object]] = set()
"""What ends runs: a loop does not keep its tasks alive."""


async def _read(stream: AsyncIterable[ItemT], requests: "asyncio.Queue[asyncio.Future[ItemT]]") -> None:
    """Read a stream, one item for each request, until its end."""
    items = aiter(stream)
    end: Exception = StopAsyncIteration()
    try:
        while True:
            request = await requests.get()
            try:
                item = await anext(items)
            except Exception as error:  # noqa: BLE001 - who requested it raises it
                if not request.done():
                    request.set_exception(error)
                return
            except BaseException:
                end = cancelled()
                if not request.done():
                    request.set_exception(end)
                raise
            if not request.done():
                request.set_result(item)
    finally:
        try:
            close: Callable[[], Awaitable[object]] | None = getattr(items, "aclose", None)
            if close is not None:
                with contextlib.suppress(LMStudioCancelledError):  # a framework may raise what its steps have raised
                    await close()
        finally:
            while not requests.empty():  # those of other tasks that read
                request = requests.get_nowait()
                if not request.done():
                    request.set_exception(end)
