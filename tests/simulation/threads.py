"""Threads of a simulation: they block as threads do, but one runs at a time, and the seed decides which.

A thread runs while the loop stands still. It hands over where it waits for the client's I/O thread, and sometimes
between two lines of what callers and that thread share. There an exception can be raised into it, too.
"""

import asyncio
import gc
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from lmstudio_integrations.client.concurrency.threads import Threads

if TYPE_CHECKING:
    from tests.simulation.loop import SimulatedLoop

T = TypeVar("T")

SHARED = ("/client/concurrency/", "/client/transport/operation.py", "/client/transport/client_context.py")
"""Parts of the names of files between whose lines a thread may be stopped."""

FOREVER = 1e6
"""Seconds of a wait that only what is waited for ends."""

CHANCE = 0.02
"""How likely it is stopped at a line."""


class SimulatedThread:
    """A thread of the system that runs only while the loop stands still; it begins soon.

    Args:
        loop: The loop.
        function: What it runs.
        future: Gets its result.
    """

    _of_thread = threading.local()

    def __init__(
        self, loop: "SimulatedLoop", function: Callable[[], Any], future: "asyncio.Future[Any] | None" = None
    ) -> None:
        self.loop = loop
        self._function = function
        self._may_run, self._has_stopped = threading.Lock(), threading.Lock()
        self._may_run.acquire()
        self._has_stopped.acquire()
        self._raised: BaseException | None = None
        self.future: asyncio.Future[Any] = future or loop.create_future()
        """Its result."""
        loop.threads.add(self)
        threading.Thread(target=self._run, daemon=True).start()
        loop.call_soon(self.resume)

    @classmethod
    def current(cls) -> "SimulatedThread | None":
        """Return the one that asks; `None` in the loop."""
        return getattr(cls._of_thread, "current", None)

    def interrupt(self, error: BaseException) -> None:
        """Raise an exception into it at the next line, or where it waits."""
        self._raised = error
        self.loop.call_soon(self.resume)

    def resume(self) -> None:
        """Let it run, in the loop, until it waits or ends."""
        if self in self.loop.threads:
            self._may_run.release()
            self._has_stopped.acquire()

    def pause(self) -> None:
        """Stop, in the thread, until it is resumed.

        Raises:
            BaseException: What was raised into it.
        """
        self._has_stopped.release()
        self._may_run.acquire()
        error, self._raised = self._raised, None
        if error is not None:
            raise error

    def _run(self) -> None:
        self._may_run.acquire()
        self._of_thread.current = self
        try:
            if self.loop.stops_threads:
                sys.settrace(self._trace)
            result = self._function()
        except BaseException as error:  # noqa: BLE001 - who waits for the future raises it
            self._end(partial(self.future.set_exception, error))
        else:
            self._end(partial(self.future.set_result, result))

    def _end(self, set_future: Callable[[], None]) -> None:
        sys.settrace(None)
        self.loop.threads.discard(self)
        if not self.future.done():
            set_future()
        self._has_stopped.release()

    def _trace(self, frame: FrameType, _event: str, _argument: object) -> Any:
        name = frame.f_code.co_filename
        return self._stop_at_lines if any(part in name for part in SHARED) else None

    def _stop_at_lines(self, _frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line" and (self._raised is not None or self.loop.random.random() < CHANCE):
            self.loop.call_soon(self.resume)
            self.pause()
            if self.loop.random.random() < CHANCE:
                gc.collect()
        return self._stop_at_lines


class StoppedError(BaseException):
    """Raised into a thread from outside, as Ctrl-C and the time limits of job queues are."""


class InterruptibleFuture(asyncio.Future[Any]):
    """The result of a thread. Whoever cancels it raises an exception into that thread, and waits until it has ended."""

    _thread: SimulatedThread

    @classmethod
    def of(cls, loop: "SimulatedLoop", function: Callable[[], T]) -> "InterruptibleFuture":
        """Return that of a function, which begins soon."""
        future = cls(loop=loop)
        future.add_done_callback(
            lambda _: future.cancelled() or future.exception()
        )  # somebody else may have failed first

        def run() -> Any:
            try:
                return function()
            except StoppedError:
                asyncio.Future.cancel(future)

        future._thread = SimulatedThread(loop, run, future)
        return future

    def cancel(self, msg: object = None) -> bool:
        if self.done():
            return False
        self._thread.interrupt(StoppedError())
        return True


class Signal:
    """A queue on which a thread of the simulation waits."""

    def __init__(self, loop: "SimulatedLoop") -> None:
        self._loop = loop
        self._items = 0
        self._waiting: SimulatedThread | None = None

    def put(self, _item: None) -> None:
        """Wake the thread, or let it not wait."""
        self._items += 1
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._loop.call_soon(waiting.resume)

    def get(self, *, timeout: float) -> None:
        """Wait for an item, for so many seconds at most.

        Raises:
            queue.Empty: If none comes.
        """
        if not self._items:
            thread = self._waiting = SimulatedThread.current()
            assert thread is not None, "who waits in the loop of a simulation waits for ever"
            timer = None if timeout >= FOREVER else self._loop.call_later(timeout, self._wake)
            try:
                thread.pause()
            finally:
                self._waiting = None
                if timer is not None:
                    timer.cancel()
        if not self._items:
            raise queue.Empty
        self._items -= 1


def sleep_in_thread(loop: "SimulatedLoop", seconds: float) -> None:
    """Let a thread of the simulation wait."""
    with suppress(queue.Empty):
        Signal(loop).get(timeout=seconds)


class SimulatedThreads(Threads):
    """Lets the thread and the loop of a simulation be the client's I/O thread, and callers be simulated threads."""

    def __init__(self, loop: "SimulatedLoop") -> None:
        self._loop = loop

    def start_loop(self, run: object, name: str) -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
        return self._loop, threading.current_thread()

    def make_signal(self) -> Signal:
        return Signal(self._loop)


class _EndedError(BaseException):
    """The simulation is over."""


def end_threads(loop: "SimulatedLoop") -> None:
    """End the threads that still wait when a simulation is over."""
    while loop.threads:
        for thread in list(loop.threads):
            thread.interrupt(_EndedError())
            thread.resume()
