"""How callers wait: a thread on a queue, a coroutine in its own loop. Both are handed all that has piled up.

The I/O thread puts items in and never waits; it wakes the caller once per portion that it reads, not once per item.
"""

import contextlib
import queue
import sys
from collections import deque
from collections.abc import Generator
from threading import current_thread
from typing import TYPE_CHECKING, Any

from lmstudio_integrations.errors import LMStudioConnectionLostError, LMStudioRuntimeError

if TYPE_CHECKING:
    import asyncio

    from lmstudio_integrations.client.transport.io_thread import IOThread

SLICE = 0.1
"""Seconds of one wait; a longer one cannot be interrupted by Ctrl-C on Windows."""


class _Done:
    """What a method returns that acts at once, so that callers may await it; an unawaited coroutine would warn."""

    def __await__(self) -> Generator[None]:
        yield from ()


DONE = _Done()


def caller() -> object:
    """Return who calls: the task, or the thread where none runs."""
    asyncio: Any = sys.modules.get("asyncio")  # an import would fail when the interpreter tears modules down
    try:
        task = asyncio.current_task() if asyncio else None
    except RuntimeError:  # no loop runs here
        task = None
    return task or current_thread()


class Waiter:
    """What has come for one call and was not yet fetched; the sink of its exchange."""

    __slots__ = ("_error", "_io", "_items", "_waiting", "done")

    def __init__(self, io: "IOThread") -> None:
        self._io = io
        self._items: deque[Any] = deque()
        self._error: BaseException | None = None
        self._waiting = False
        self.done: bool = False
        """Whether nothing more will come."""

    def put(self, item: Any) -> None:
        """Take an item in (on the I/O thread)."""
        self._items.append(item)
        self._wake_if_waiting()

    def finish(self, error: BaseException | None) -> None:
        """Take note that nothing more comes (on the I/O thread)."""
        self._error = error
        self.done = True
        self._wake_if_waiting()

    def take(self) -> list[Any] | None:
        """Return what has come; an empty list at the end, `None` if it is to be waited for.

        Raises:
            BaseException: That with which the call failed, after everything before it was taken.
            SystemExit: In a daemon thread when the process ends.
        """
        done, items = self.done, self._items
        if items:
            return [items.popleft() for _ in range(len(items))]
        if done:
            if self._error is not None:
                self._io.end_daemon()
                raise self._error
            return []
        if self._io.gone:
            self._io.end_daemon()
            raise LMStudioConnectionLostError(
                "the process was forked while this call was open; make it again"
                if self._io.dead
                else "the process is ending; make calls before that",
                retryable=False,
            )
        return None

    def check_reader(self) -> None:
        """Refuse a caller who cannot wait for this."""

    def is_alive(self) -> bool:
        """Whether the caller can still be woken."""
        return True

    @property
    def is_lost(self) -> bool:
        """Whether the caller belongs to the parent of a fork."""
        return self._io.dead

    def would_stop(self, other: "Waiter") -> bool:  # noqa: ARG002 - for those who block
        """Whether waiting here keeps another caller from going on."""
        return False

    def _must_wait(self) -> bool:
        """Announce that the caller waits; tell whether it must.

        First the announcement, then the look: what was put before it has woken nobody and is seen here, what is put
        after it wakes the caller.
        """
        self._waiting = True
        return not (self._items or self.done)

    def _wake_if_waiting(self) -> None:
        """Wake the caller, once; one that is still busy with what it has looks again by itself."""
        if self._waiting:
            self._waiting = False
            self._io.wake(self._wake)

    def _wake(self) -> None:
        raise AssertionError("each kind of waiter has its own way to wake its caller")


class ThreadWaiter(Waiter):
    """For a thread."""

    __slots__ = ("_signal",)

    def __init__(self, io: "IOThread") -> None:
        super().__init__(io)
        self._signal: queue.SimpleQueue[None] | None = None

    def wait(self) -> list[Any]:
        """Return what has come, at least one item; an empty list at the end."""
        batch = self.take()
        if batch is not None:
            return batch
        self._io.check_caller()
        # Of many calls, most are answered while another is waited for, and need none. SimpleQueue.put may be called
        # from finalizers, unlike that of queue.Queue.
        signal = self._signal = self._signal or queue.SimpleQueue()
        while batch is None:
            if self._must_wait():
                with contextlib.suppress(queue.Empty):
                    signal.get(timeout=SLICE)
            self._waiting = False
            batch = self.take()
        return batch

    def would_stop(self, other: Waiter) -> bool:
        """Whether waiting here keeps another caller from going on: one in the event loop that this thread runs."""
        return isinstance(other, LoopWaiter) and other.runs_here()

    def _wake(self) -> None:
        assert self._signal is not None, "only a caller who waits is woken"
        self._signal.put(None)


class LoopWaiter(Waiter):
    """For a coroutine in the loop that is running when the call is made."""

    __slots__ = ("_future", "_get_running_loop", "_loop")

    def __init__(self, io: "IOThread") -> None:
        from asyncio import get_running_loop  # noqa: PLC0415 - whoever runs a loop has loaded it

        super().__init__(io)
        self._get_running_loop = get_running_loop
        self._loop = get_running_loop()
        self._future: asyncio.Future[None] | None = None

    async def wait(self) -> list[Any]:
        """Return what has come, at least one item; an empty list at the end."""
        while (batch := self.take()) is None:
            self._future = self._loop.create_future()
            try:
                if self._must_wait():
                    await self._future
            finally:
                self._future = None
                self._waiting = False
        return batch

    def _wake(self) -> None:
        # The loop may be closed, or close just now; `is_alive` then tells the session.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._notify)

    def check_reader(self) -> None:
        """Refuse to be waited for in another loop.

        Raises:
            LMStudioRuntimeError: If the loop that runs is not that in which the call was made.
        """
        if not self._items and self._get_running_loop() is not self._loop:
            raise LMStudioRuntimeError(
                "this stream was begun in another event loop; read it in that one, or make a new stream in this one"
            )

    def is_alive(self) -> bool:
        """Whether the caller's loop can still run."""
        return not self._loop.is_closed()

    def runs_here(self) -> bool:
        """Whether this thread runs the caller's loop."""
        try:
            return self._get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _notify(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
