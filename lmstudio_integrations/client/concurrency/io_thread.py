"""The one thread that owns every socket of the process, and its event loop.

Everything that touches a session or a socket runs here. Callers submit work with `submit`, which never blocks. No user
code runs here. A forked child gets a thread of its own; it neither writes to the parent's sockets nor closes them.
Callers wait in `mailboxes.py`; how threads are started and woken is in `threads.py`.
"""

import asyncio
import atexit
import os
import sys
import threading
import time
from _thread import start_new_thread
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import Context
from functools import wraps
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, Protocol, TypeVar

from lmstudio_integrations._support.leaves import door
from lmstudio_integrations.client.concurrency.threads import Threads
from lmstudio_integrations.errors import LMStudioRuntimeError

ParametersT = ParamSpec("ParametersT")
ResultT = TypeVar("ResultT")

CHECK_VARIABLE = "LMSTUDIO_INTEGRATIONS_CHECK_THREADS"
"""The environment variable with which the tests check `on_io_thread`."""

EXIT_DEADLINE = 1.0
"""Seconds that the sockets have to close when the process exits; what remains then has as long to be cancelled."""

YIELD = 0.001
"""Seconds for which `yield_to` waits at most."""

_NAME = "lmstudio-io"


def on_io_thread(function: Callable[ParametersT, ResultT]) -> Callable[ParametersT, ResultT]:
    """Mark a function that only the I/O thread may run. The tests assert it; otherwise the mark costs nothing."""
    if CHECK_VARIABLE not in os.environ:
        return function

    @wraps(function)
    def checked(*args: ParametersT.args, **kwargs: ParametersT.kwargs) -> ResultT:
        # The name is that of an earlier thread, too, which goes on in a block of `IOThread.fresh`.
        io, name = IOThread.started(), threading.current_thread().name
        assert io is None or io.is_current or name == _NAME, f"{function.__qualname__} runs on the I/O thread"
        return function(*args, **kwargs)

    return checked


def uninterrupted(function: Callable[[], ResultT]) -> ResultT:
    """Return the result of a function; it runs in another thread than the main one, where no signal handler runs.

    A handler that makes a call would wait for a lock that the step holds in the middle of which it runs.

    Raises:
        BaseException: What the function raises.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return function()
    ended: SimpleQueue[Callable[[], ResultT]] = SimpleQueue()
    try:
        start_new_thread(_run, (function, ended))  # not `threading.Thread`: its `start` holds locks in this thread
    except RuntimeError:  # the process is ending, or may have no more threads
        return function()
    return ended.get()()


def _run(function: Callable[[], ResultT], ended: SimpleQueue[Callable[[], ResultT]]) -> None:
    trace = threading.gettrace()
    if trace is not None:  # as `threading.Thread` does it, for debuggers
        sys.settrace(trace)
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
        failure = error

        def end() -> ResultT:
            raise failure
    else:

        def end() -> ResultT:
            return result

    ended.put(end)


class Tenant(Protocol):
    """What lives on the thread and is closed with it: the connections."""

    async def close(self) -> None:
        """Close everything."""
        ...


class IOThread:
    """A daemon thread that runs an event loop; started on first use."""

    _current: "IOThread | None" = None
    _lock = threading.Lock()
    _from_parent: "list[IOThread]" = []  # noqa: RUF012 - one list for the process
    """The parent's thread, kept alive in a forked child: closing its loop would close file descriptors of both."""

    tenant: Tenant | None = None
    """What lives here, once a call was made."""

    def __init__(self) -> None:
        self.belongs_to_parent = False
        """Whether this thread runs in the parent of a fork, and not in this process."""
        self.stopped: bool = False
        """Whether nothing runs here any more: after a fork, or when the process exits."""
        self.process_exiting = False
        """Whether the process exits, although something may still run here."""
        self.shared: dict[Any, Any] = {}
        """Objects that all clients of one server share, see `ClientContext.shared`; empty again in a forked child."""
        self._pending_wakes: list[Callable[[], None]] | None = None
        self._context = Context()
        """Empty: what runs here serves all callers, so it has the context variables of none."""
        self.threads: Threads = _threads_of_this_process()
        self.loop: asyncio.AbstractEventLoop
        self.thread: threading.Thread
        self.loop, self.thread = self.threads.start_loop(self.run, _NAME)

    @classmethod
    def current(cls) -> "IOThread":
        """Return the thread of this process."""
        return cls._current or uninterrupted(cls._start)

    @classmethod
    def started(cls) -> "IOThread | None":
        """Return the thread of this process, if it runs."""
        return None if cls._current is None or cls._current.stopped else cls._current

    @classmethod
    def _start(cls) -> "IOThread":
        with cls._lock:
            try:
                thread = cls._current = cls._current or cls()
            except (OSError, RuntimeError) as error:  # no descriptor or no thread is left, or the process is ending
                raise LMStudioRuntimeError(
                    f"the client's thread cannot be started: {error}; close files and connections that are not needed, "
                    "or raise the limits of the process (ulimit -n, ulimit -u)"
                ) from error
        return thread

    @classmethod
    def after_fork(cls) -> None:
        """Forget the parent's thread, which does not exist in the child."""
        cls._lock = threading.Lock()
        if cls._current is not None:
            cls._current.belongs_to_parent = cls._current.stopped = True
            cls._from_parent.append(cls._current)
            cls._current = None

    @classmethod
    @contextmanager
    def fresh(cls) -> Generator[None]:
        """Give the block a thread of its own: as in a new process, nothing is connected or cached yet."""
        with cls._lock:
            earlier, cls._current = cls._current, None
        try:
            yield
        finally:
            own = cls.started()
            if own is not None:
                own.end()
            cls._current = earlier

    @property
    def is_current(self) -> bool:
        """Whether who asks runs on the thread, if only because it collects garbage there."""
        return threading.current_thread() is self.thread

    def submit(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a function on the thread, soon. May be called from any thread, from finalizers too."""
        if not self.stopped:
            try:  # noqa: SIM105 - `suppress` is three calls
                self.loop.call_soon_threadsafe(function, *args, context=self._context)
            except RuntimeError:  # the loop may be closing
                pass

    def yield_to(self) -> None:
        """Let the thread do what was submitted, for at most `YIELD`.

        It was woken, but with the GIL one thread runs at a time, and the calling one may go on for 5 ms. Returns at
        once on the thread itself.
        """
        if self.stopped or self.is_current:
            return
        done = self.threads.make_signal()
        self.submit(done.put, None)
        with suppress(Empty):
            done.get(timeout=YIELD)

    @on_io_thread
    def hold_wakes(self) -> None:
        """Wake no caller before `release_wakes`, so that each wakes once per batch."""
        self._pending_wakes = []

    @on_io_thread
    def release_wakes(self) -> None:
        """Wake the callers for whom something has arrived."""
        wakes, self._pending_wakes = self._pending_wakes or (), None
        for wake in wakes:
            wake()

    @on_io_thread
    def wake_or_hold(self, wake: Callable[[], None]) -> None:
        """Wake a caller, now or after a batch (`hold_wakes`); `wake` must not raise."""
        if self._pending_wakes is None:
            wake()
        else:
            self._pending_wakes.append(wake)

    def exit_calling_daemon_thread(self) -> None:
        """End the calling thread silently if it is a daemon and the process exits: an error would print a traceback.

        Normally the process exits during the sleep. If something joins the thread, the thread ends with `SystemExit`.

        Raises:
            SystemExit: In a daemon thread when the process exits.
        """
        if self.process_exiting and threading.current_thread().daemon:
            time.sleep(EXIT_DEADLINE)
            raise SystemExit

    @classmethod
    def close_at_exit(cls) -> None:
        """End the thread of this process, if it was started."""
        self = cls._current
        if self is None or self.stopped or not self.thread.is_alive():
            return
        self.process_exiting = True
        self.end()

    def end(self) -> None:
        """Close everything and end the thread; takes at most twice `EXIT_DEADLINE`."""
        asyncio.run_coroutine_threadsafe(self._close(), self.loop)
        self.threads.join(self.thread, self.loop, EXIT_DEADLINE * 2)

    async def _close(self) -> None:
        if self.tenant is not None:
            await asyncio.wait([asyncio.ensure_future(self.tenant.close())], timeout=EXIT_DEADLINE)
        self.loop.stop()

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the event loop in the calling thread until it is stopped, and close it."""
        self.loop = loop  # this thread may be faster than the one that starts it
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            try:
                self._drain()
            finally:
                self.stopped = True
                loop.close()

    def _drain(self) -> None:
        """Cancel and await the remaining tasks, so that none is destroyed while it is pending."""
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=EXIT_DEADLINE))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())


def _threads_of_this_process() -> Threads:
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return Threads()
    with door("support of gevent"):
        from lmstudio_integrations.client.concurrency.greenlets import GreenletThreads  # noqa: PLC0415 - a leaf
    return GreenletThreads()


atexit.register(IOThread.close_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=IOThread.after_fork)
