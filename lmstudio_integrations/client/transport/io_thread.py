"""The one thread that owns every socket of the process, and its event loop.

Everything that touches a session or a socket runs here. Callers submit work with `submit`, which never blocks. No user
code runs here. A forked child gets a thread of its own; it neither writes to the parent's sockets nor closes them.
Used by everything else in this folder: `dispatcher.py` starts the thread, `waiters.py` is woken by it.
"""

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

from lmstudio_integrations.client.transport.connections import Pool

EXIT_DEADLINE = 1.0
"""Seconds within which sockets must close when the process ends."""


class IOThread:
    """A daemon thread that runs an event loop; started on first use."""

    _current: "IOThread | None" = None
    _lock = threading.Lock()
    _abandoned: "list[IOThread]" = []  # noqa: RUF012 - one list for the process, so that nothing in it is finalized

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self.forked = False
        """Whether this thread belongs to the parent of a fork."""
        self.stopped: bool = False
        """Whether nothing runs here any more: after a fork, or when the process ends."""
        self.ending = False
        """Whether the process ends."""
        self.pool: Pool = Pool()
        """The connections; only the thread itself uses them."""
        self.shared: dict[Any, Any] = {}
        """Objects that all clients of one server share, see `Dispatcher.shared`; empty again in a forked child."""
        self._held: list[Callable[[], None]] | None = None
        self.thread: threading.Thread = threading.Thread(target=self._run, name="lmstudio-io", daemon=True)
        self.thread.start()

    @classmethod
    def current(cls) -> "IOThread":
        """Return the thread of this process."""
        thread = cls._current
        if thread is None:
            with cls._lock:
                thread = cls._current = cls._current or cls()
        return thread

    @classmethod
    def after_fork(cls) -> None:
        """Forget the parent's thread, which does not exist in the child."""
        cls._lock = threading.Lock()
        if cls._current is not None:
            cls._current.forked = cls._current.stopped = True
            cls._abandoned.append(cls._current)
            cls._current = None

    def submit(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a function on the thread, soon. May be called from any thread, from finalizers too."""
        if not self.stopped:
            with contextlib.suppress(RuntimeError):  # the loop may be closing
                self.loop.call_soon_threadsafe(function, *args)

    def hold_wakes(self) -> None:
        """Wake no caller before `release_wakes`, so that a batch wakes each of them once (on the thread)."""
        self._held = []

    def release_wakes(self) -> None:
        """Wake the callers that were due since `hold_wakes` (on the thread)."""
        held, self._held = self._held or (), None
        for wake in held:
            wake()

    def wake(self, wake: Callable[[], None]) -> None:
        """Wake a caller, now or at `release_wakes` (on the thread)."""
        if self._held is None:
            wake()
        else:
            self._held.append(wake)

    def end_daemon(self) -> None:
        """End a daemon thread silently when the process ends, instead of with an error that prints a traceback.

        The process normally ends during the pause. If something joins the thread, the thread ends with `SystemExit`.

        Raises:
            SystemExit: In a daemon thread when the process ends.
        """
        if self.ending and threading.current_thread().daemon:
            threading.Event().wait(EXIT_DEADLINE)
            raise SystemExit

    @classmethod
    def end_with_process(cls) -> None:
        """Close everything within `EXIT_DEADLINE`, and end the thread, if it was started."""
        self = cls._current
        if self is None or self.stopped or not self.thread.is_alive():
            return
        self.ending = True
        self.loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._close(), loop=self.loop))
        self.thread.join(EXIT_DEADLINE * 2)

    async def _close(self) -> None:
        await asyncio.wait([asyncio.ensure_future(self.pool.close())], timeout=EXIT_DEADLINE)
        self.loop.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self._drain()
            self.stopped = True
            self.loop.close()

    def _drain(self) -> None:
        """Cancel and await the remaining tasks, so that none is destroyed while it is pending."""
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=EXIT_DEADLINE))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())


atexit.register(IOThread.end_with_process)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=IOThread.after_fork)
