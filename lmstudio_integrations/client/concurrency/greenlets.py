"""The I/O thread in programs whose `threading` gevent has patched, and how greenlets wait for it.

There, threads of `threading` are greenlets of the thread that starts them, in which callers' event loops run, too.
`io_thread.py` uses this module in such programs only, so gevent is never imported here.
"""

import asyncio
import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from lmstudio_integrations.client.concurrency.threads import Threads

ResultT = TypeVar("ResultT")


POLL = 0.001
"""Seconds between two looks whether the loop is closed."""


class GreenletThreads(Threads):
    """Real threads of the operating system; their loops are made there, with the hub of that thread."""

    def start_loop(
        self,
        run: Callable[[asyncio.AbstractEventLoop], None],
        name: str,  # noqa: ARG002 - such a thread has no name
    ) -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
        """Return a new event loop, and the thread in which a function runs it."""
        original = sys.modules["gevent.monkey"].get_original
        started: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, threading.Thread]]
        started = original("queue", "SimpleQueue")()

        def make_loop() -> None:
            loop = asyncio.new_event_loop()
            loop.set_default_executor(_GreenletExecutor())
            started.put((loop, threading.current_thread()))
            run(loop)

        original("_thread", "start_new_thread")(make_loop, ())
        return started.get()

    def join(self, thread: threading.Thread, loop: asyncio.AbstractEventLoop, timeout: float) -> None:  # noqa: ARG002 - it is no thread of `threading`
        """Wait until the loop is closed, for so many seconds at most."""
        deadline = time.monotonic() + timeout
        while not loop.is_closed() and time.monotonic() < deadline:
            time.sleep(POLL)

    def make_signal(self) -> Any:
        """Return a queue on which the calling greenlet waits for the I/O thread."""
        return _Signal()


class _GreenletExecutor(ThreadPoolExecutor):
    """Looks names up in greenlets of the thread; at exit, the main thread could not join threads of `threading`."""

    def submit(self, fn: Callable[..., ResultT], /, *args: Any, **kwargs: Any) -> Future[ResultT]:
        future: Future[ResultT] = Future()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - who waits for the future raises it
                future.set_exception(error)

        sys.modules["gevent"].spawn(run)
        return future


class _Signal:
    """A queue for one greenlet, which its own hub wakes."""

    def __init__(self) -> None:
        self._hub: Any = sys.modules["gevent"].get_hub()
        self._queue = queue.SimpleQueue[None]()  # it is gevent's

    def get(self, *, timeout: float) -> None:
        """Wait for an item, for so many seconds at most."""
        self._queue.get(timeout=timeout)

    def put(self, item: None) -> None:
        """Wake the greenlet, from any thread."""
        self._hub.loop.run_callback_threadsafe(self._queue.put, item)
