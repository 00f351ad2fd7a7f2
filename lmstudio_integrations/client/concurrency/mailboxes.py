"""How callers wait: a thread on a queue, a coroutine in its own event loop. Both receive everything that has arrived.

The I/O thread puts items into a mailbox and never blocks. It wakes the caller once per batch, not once per item. The
drivers of flows (`flows.py`) call `wait`; the sessions of the protocol deliver to a mailbox as the receiver of a call.
A coroutine on the I/O thread is waited for in the same way (`IOTask`): a pause, a download, a turn.
"""

import asyncio
import queue
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from threading import current_thread
from typing import Any, Generic

from lmstudio_integrations.client.concurrency.flows import Flow, T
from lmstudio_integrations.client.concurrency.io_thread import IOThread, on_io_thread
from lmstudio_integrations.errors import LMStudioCancelledError, LMStudioConnectionLostError, LMStudioRuntimeError

SLICE = 0.1
"""Seconds of one blocking wait; Ctrl-C cannot interrupt a longer one on Windows."""


class _Done:
    """The result of a method that acts immediately but may be awaited; an unawaited coroutine would warn."""

    def __await__(self) -> Generator[None]:
        yield from ()


DONE = _Done()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # no loop runs here
        return None


def callers_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of an async call.

    Raises:
        LMStudioRuntimeError: If it was made outside of asyncio.
    """
    loop = running_loop()
    if loop is None:
        raise LMStudioRuntimeError(
            "async calls need an event loop of asyncio, and none runs here; under trio, use trio_asyncio, or run the "
            "sync method in a thread with trio.to_thread.run_sync"
        )
    return loop


def current_thread_or_task() -> object:
    """Return the current task, or the current thread where no task runs; `None` if gevent has ended all threads."""
    loop = running_loop()
    if loop is not None and (task := asyncio.current_task(loop)) is not None:
        return task
    try:
        return current_thread()
    except RuntimeError:  # a stream is collected at the end of the process, when no greenlet can be made any more
        return None


class Mailbox(ABC):
    """The receiver of one call: collects what arrives until the caller fetches it."""

    __slots__ = ("_error", "_io", "_items", "_waiting", "done", "loop")

    def __init__(self, io: IOThread, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._io = io
        self.loop: asyncio.AbstractEventLoop | None = loop
        """The event loop in which the caller waits; `None` for a thread."""
        self._items: deque[Any] = deque()
        self._error: BaseException | None = None
        self._waiting = False
        self.done: bool = False
        """Whether the call has ended: nothing more arrives."""

    @on_io_thread
    def put(self, item: Any) -> None:
        """Receive an item."""
        self._items.append(item)
        if self._waiting:  # checked here, because this runs for every token
            self._wake_once()

    @on_io_thread
    def finish(self, error: BaseException | None) -> None:
        """Record that nothing more arrives. The first end stays: whoever waits may be reading it."""
        if self.done:
            return
        self._error = error
        self.done = True
        if self._waiting:
            self._wake_once()

    def abort(self, error: BaseException) -> None:
        """End the wait with an error. Any thread may call it, also the I/O thread while it collects garbage.

        There it is done at once, because what is finalized next may wait for the caller.
        """
        if self._io.is_current:
            self.finish(error)
        else:
            self._io.submit(self.finish, error)

    def pop_all(self) -> list[Any] | None:
        """Return what has arrived; an empty list at the end, `None` if the caller has to wait.

        Raises:
            BaseException: The error of the call, once everything before it was returned.
            SystemExit: In a daemon thread when the process exits.
        """
        done, items = self.done, self._items
        if items:
            return [items.popleft() for _ in range(len(items))]
        if done:
            if self._error is not None:
                self._io.exit_calling_daemon_thread()
                raise self._error
            return []
        if self._io.stopped:
            self._io.exit_calling_daemon_thread()
            if self._io.belongs_to_parent:
                raise LMStudioConnectionLostError(
                    "the process was forked while this call was open; make it again", retryable=False
                )
            raise _process_ending()
        return None

    def check_reader(self) -> None:
        """Reject a wait in another event loop.

        Raises:
            LMStudioRuntimeError: If the running loop is not the one in which the call was made.
        """
        if self.loop is not None and not self._items and running_loop() is not self.loop:
            raise LMStudioRuntimeError(
                "this stream was started in another event loop; read it there, or make a new stream in this loop"
            )

    @on_io_thread
    def is_alive(self) -> bool:
        """Whether the caller can still be woken: a thread always can, a coroutine until its loop is closed.

        A reader that pauses is alive. One that nothing refers to any more closes its call when Python collects it.
        """
        return self.loop is None or not self.loop.is_closed()

    @property
    def error(self) -> BaseException | None:
        """The error with which the call has ended."""
        return self._error

    @property
    def is_lost(self) -> bool:
        """Whether the caller belongs to the parent of a fork."""
        return self._io.belongs_to_parent

    def runs_with(self, other: "Mailbox") -> bool:  # noqa: ARG002 - concurrent flows use it
        """Whether the caller waits for both at once."""
        return False

    def would_block(self, other: "Mailbox") -> bool:
        """Whether waiting here blocks another caller: one in the event loop that this thread runs."""
        return self.loop is None and other.loop is not None and other.loop is running_loop()

    def is_empty(self) -> bool:
        """Return whether there is nothing to fetch yet."""
        return not (self._items or self.done)

    def must_wait(self) -> bool:
        """Announce that the caller waits; return whether it must.

        The order matters: an item that was put before the announcement woke nobody and is seen by the check; one that
        is put after it wakes the caller. Without the GIL it holds as well: a store into an attribute and an operation
        on a deque lock their object, so they come before what the thread reads next.
        """
        self._waiting = True
        return self.is_empty()

    def _wake_once(self) -> None:
        """Wake the caller, who waits; a caller that is busy checks again by itself."""
        self._waiting = False
        self._io.wake_or_hold(self._wake)

    @abstractmethod
    def wait(self) -> Any:
        """Return what has arrived, at least one item; an empty list at the end. For coroutines, an awaitable of it."""

    @abstractmethod
    def _wake(self) -> None:
        """Wake the caller, on the I/O thread; must not raise."""


class ThreadMailbox(Mailbox):
    """For a thread."""

    __slots__ = ("_signal",)

    def __init__(self, io: IOThread) -> None:
        super().__init__(io)
        self._signal: Any = None

    def wait(self) -> list[Any]:
        """Return what has arrived, at least one item; an empty list at the end.

        Raises:
            LMStudioRuntimeError: If called on the I/O thread, which would wait forever.
        """
        while (batch := self.pop_all()) is None:
            if self._signal is None:  # most calls of a batch get their response while the caller waits for another one
                self._signal = self._make_signal()
            if self.must_wait():
                try:  # noqa: SIM105 - `suppress` is three calls, for each token
                    self._signal.get(timeout=SLICE)
                except queue.Empty:
                    pass
            self._waiting = False
        return batch

    def _make_signal(self) -> Any:
        if self._io.is_current:
            raise LMStudioRuntimeError("a blocking call was made on the I/O thread; make it from another thread")
        return self._io.threads.make_signal()

    def _wake(self) -> None:
        self._signal.put(None)


class LoopMailbox(Mailbox):
    """For a coroutine in the loop that is running when the call is made."""

    __slots__ = ("_future", "_loop")

    def __init__(self, io: IOThread) -> None:
        self._loop = callers_loop()
        super().__init__(io, self._loop)
        self._future: asyncio.Future[None] | None = None

    async def wait(self) -> list[Any]:
        """Return what has arrived, at least one item; an empty list at the end."""
        while (batch := self.pop_all()) is None:
            self._future = self._loop.create_future()
            try:
                if self.must_wait():
                    await self._future
            finally:
                self._future = None
                self._waiting = False
        return batch

    def _wake(self) -> None:
        # The loop may be closed, or closing; the session then finds out by `is_alive`. Other libraries' loops raise
        # anything then, which must not keep the I/O thread from waking other callers.
        try:  # noqa: SIM105 - `suppress` is three calls, for each token
            self._loop.call_soon_threadsafe(self._notify)
        except Exception:  # noqa: BLE001, S110
            pass

    def _notify(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


@dataclass(eq=False)
class IOTask(Generic[T]):
    """A coroutine on the I/O thread.

    Attributes:
        io: The thread.
        mailbox: Where the caller waits; it receives the result.
        work: Makes the coroutine.
        client_id: Stands for the client whose closing cancels it.
    """

    io: IOThread
    mailbox: Mailbox
    work: Callable[[], Coroutine[Any, Any, T]]
    client_id: object = None
    _task: "asyncio.Task[T] | None" = None
    _reason: BaseException | None = None

    @on_io_thread
    def begin(self, on_end: "Callable[[IOTask[T]], object]" = lambda _: None) -> None:
        """Start the coroutine; at its end, call `on_end` on the thread."""
        self._task = self.io.loop.create_task(self.work())
        self._task.add_done_callback(self._finish)
        self._task.add_done_callback(lambda _: on_end(self))

    @on_io_thread
    def cancel(self, reason: BaseException | None = None) -> None:
        """Cancel the coroutine; a waiting caller gets the reason as an error."""
        if self._task is not None:
            self._reason = reason
            self._task.cancel()

    def abort(self, error: LMStudioCancelledError) -> None:
        """Wake the caller with an error, who then cancels the coroutine."""
        self.mailbox.abort(error)

    def result(self) -> Flow[T]:
        """Wait for the result. Ending the wait early cancels the coroutine."""
        try:
            (result,) = yield self
        finally:
            if self._task is None or not self._task.done():  # not `mailbox.done`: closing a stream ends its wait early
                self.io.submit(self.cancel)
        return result  # type: ignore[no-any-return]  # what a step receives has any type

    def _finish(self, task: "asyncio.Task[T]") -> None:
        error = (self._reason or _process_ending()) if task.cancelled() else task.exception()
        if error is None:
            self.mailbox.put(task.result())
        self.mailbox.finish(error)


def _process_ending() -> LMStudioConnectionLostError:
    return LMStudioConnectionLostError("the process is ending; make calls before that", retryable=False)
