"""How the thread of `io_thread.py` is started and joined, and how it wakes the threads that wait for it.

In programs that gevent has patched, `greenlets.py` takes the place of it.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from lmstudio_integrations._support.threads import run_in_thread

ResultT = TypeVar("ResultT")


class Threads:
    """Threads of the operating system, as `threading` starts them."""

    def start_loop(
        self, run: Callable[[asyncio.AbstractEventLoop], None], name: str
    ) -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
        """Return a new event loop, and a daemon thread in which a function runs it."""
        loop = asyncio.new_event_loop()
        loop.set_default_executor(_DaemonThreads())
        thread = threading.Thread(target=run, args=(loop,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            loop.close()
            raise
        return loop, thread

    def join(self, thread: threading.Thread, loop: asyncio.AbstractEventLoop, timeout: float) -> None:  # noqa: ARG002 - greenlets look at the loop
        """Wait until the thread of a loop has ended, for so many seconds at most."""
        thread.join(timeout)

    def make_signal(self) -> Any:
        """Return a queue on which the calling thread waits for the I/O thread."""
        return SimpleQueue[None]()  # finalizers may call its `put`, but not that of a `queue.Queue`


class _DaemonThreads(ThreadPoolExecutor):
    """Runs what blocks, such as looking up a name, in a daemon thread of its own.

    A pool takes nothing more once the main thread has ended, although other threads and exit handlers still make calls;
    and the process would wait for it at its end.
    """

    def submit(self, fn: Callable[..., ResultT], /, *args: Any, **kwargs: Any) -> Future[ResultT]:
        try:
            return run_in_thread(partial(fn, *args, **kwargs), "lmstudio-blocking")
        except RuntimeError:  # the process is ending: Python 3.12.1 starts no thread then
            future: Future[ResultT] = Future()
            future.set_result(fn(*args, **kwargs))
            return future
