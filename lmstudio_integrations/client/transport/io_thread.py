"""The event loop that owns every socket of the process, and the thread that runs it unless a caller leads.

Everything that touches a session or a socket runs in this loop, in one thread at a time: in the I/O thread, or in that
of a sync caller who waits alone (`IOThread.lead`; docs/internals/design.md). Callers submit work with `submit`, which
never blocks. No user code runs in the loop. A forked child gets a loop and a thread of its own; it neither writes to
the parent's sockets nor closes them. `client_context.py` starts the thread; it runs `connections.py` and wakes the
callers in `mailboxes.py`.
"""

import asyncio
import atexit
import os
import signal
import sys
import threading
import time
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import Context
from functools import wraps
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from lmstudio_integrations._support.leaves import door
from lmstudio_integrations.client.transport.loop import ClientLoop, InterruptHolder
from lmstudio_integrations.errors import LMStudioRuntimeError

if TYPE_CHECKING:
    from lmstudio_integrations.client.transport.connections import Connections
    from lmstudio_integrations.client.transport.mailboxes import ThreadMailbox

ParametersT = ParamSpec("ParametersT")
ResultT = TypeVar("ResultT")

CHECK_VARIABLE = "LMSTUDIO_INTEGRATIONS_CHECK_THREADS"
"""The environment variable with which the tests check `on_io_thread`."""

EXIT_DEADLINE = 1.0
"""Seconds that the sockets have to close when the process exits; what remains then has as long to be cancelled."""

YIELD = 0.001
"""Seconds for which `yield_to` waits at most."""

REST = 0.25
"""Seconds without a caller that leads after which the thread runs the loop again: nobody waits for it until then."""

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


class IOThread:
    """An event loop, and a daemon thread that runs it; started on first use.

    One thread runs the loop at a time: who holds `_turn`. A sync caller who reads a stream, and whom alone the loop
    serves, runs it while it waits, so that a token passes one thread. The I/O thread rests meanwhile. It takes its turn
    when something is submitted, when another caller has to be served, when the stream has ended, and when the caller
    has not led for `REST` seconds.
    """

    _current: "IOThread | None" = None
    _lock = threading.Lock()
    _from_parent: "list[IOThread]" = []  # noqa: RUF012 - one list for the process
    """The parent's thread, kept alive in a forked child: closing its loop would close file descriptors of both."""

    connections: "Connections | None" = None
    """What runs here, once a call was made."""

    def __init__(self) -> None:
        self.belongs_to_parent = False
        """Whether this thread runs in the parent of a fork, and not in this process."""
        self.stopped: bool = False
        """Whether nothing runs here any more: after a fork, or when the process exits."""
        self.process_exiting = False
        """Whether the process exits, although something may still run here."""
        self.shared: dict[Any, Any] = {}
        """Objects that all clients of one server share, see `ClientContext.shared`; empty again in a forked child."""
        self.leader: ThreadMailbox | None = None
        """The caller who runs the loop."""
        self._pending_wakes: list[Callable[[], None]] | None = None
        self._context = Context()
        """Empty: what runs here serves all callers, so it has the context variables of none."""
        self._inbox: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        # It knows its owner: an exception may be raised into a thread just when it has it, before anything is noted.
        self._turn = threading.RLock()
        self._runner: int | None = None
        """The thread that runs the loop."""
        self._main_thread = threading.main_thread().ident
        self._turns = 0
        """How often a caller has led."""
        self._alone: int | None = None
        """The thread in which all callers wait that the loop serves, as far as that is known."""
        self._offered: ThreadMailbox | None = None
        self.interrupts: InterruptHolder = InterruptHolder(lambda: self.submit(self.loop.stop))
        """Holds Ctrl-C back while a caller leads in the main thread."""
        self._needed = SimpleQueue[None]()
        """Wakes the thread while it rests; finalizers may call its `put`."""
        self._ending = False
        self.loop: asyncio.AbstractEventLoop
        self.thread: threading.Thread
        self.loop, self.thread = self.start_loop()

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
                thread = cls._current = cls._current or _class_in_this_process()()
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
            cls._current.interrupts.release_after_fork()
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

    def start_loop(self) -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
        """Return a new event loop, and the thread in which `run` runs it."""
        loop = asyncio.new_event_loop() if sys.platform == "win32" else ClientLoop()
        thread = threading.Thread(target=self.run, args=(loop,), name=_NAME, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            loop.close()
            raise
        return loop, thread

    def make_signal(self) -> Any:
        """Return a queue on which the calling thread waits for the I/O thread."""
        return SimpleQueue[None]()  # finalizers may call its `put`, but not that of a `queue.Queue`

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended, for so many seconds at most."""
        self.thread.join(timeout)

    @property
    def is_current(self) -> bool:
        """Whether who asks runs in the loop, if only because it collects garbage there."""
        return self._runner == threading.get_ident()

    def submit(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a function in the loop, soon. May be called from any thread, from finalizers too."""
        if self.stopped:
            return
        self._inbox.append((function, args))
        # Read after that: a thread that leaves the loop looks into the inbox after it has changed this.
        if self._runner is not None:
            try:  # noqa: SIM105 - `suppress` is three calls
                self.loop.call_soon_threadsafe(self._run_inbox, context=self._context)
            except RuntimeError:  # the loop may be closing
                pass
        else:
            self._needed.put(None)

    def _run_inbox(self) -> None:
        while self._inbox:
            function, args = self._inbox.popleft()
            self._alone = None  # it may begin a call
            try:
                function(*args)
            except Exception as error:  # noqa: BLE001 - it must not keep others from running
                self.loop.call_exception_handler({"message": f"{function!r} failed", "exception": error})

    def yield_to(self) -> None:
        """Let what was submitted be done: here, if no thread runs the loop, else there, for at most `YIELD`.

        The I/O thread was woken, but with the GIL one thread runs at a time, and the calling one may go on for 5 ms.
        Returns at once in the loop itself.
        """
        if self.stopped or self.is_current or self.lead():
            return
        done = threading.Lock()
        done.acquire()
        self.submit(done.release)
        done.acquire(timeout=YIELD)

    # Who runs the loop ------------------------------------------------------------------------------------------------

    def can_lead(self) -> bool:
        """Return whether the calling thread may run the loop now."""
        return (
            isinstance(self.loop, ClientLoop)
            # Without a loop in this thread, the public function raises.
            and asyncio._get_running_loop() is None  # noqa: SLF001
            and (threading.get_ident() != self._main_thread or self.interrupts.allows_loop())
        )

    def lead(self, leader: "ThreadMailbox | None" = None) -> bool:
        """Run the loop in the calling thread until its caller is woken; without one, only what was submitted.

        Returns:
            Whether it was done; if not, another thread runs the loop, or this one must not.

        Raises:
            KeyboardInterrupt: If Ctrl-C was pressed meanwhile.
        """
        # This runs for each token: a function more costs one that comes alone 3 µs.
        loop, me = self.loop, threading.get_ident()
        if (
            self._runner is not None or not isinstance(loop, ClientLoop) or asyncio._get_running_loop() is not None  # noqa: SLF001
        ):
            return False
        if me != self._main_thread:
            return self._lead(leader, loop, me)
        if not self.interrupts.hold():
            return False
        try:
            has_led = self._lead(leader, loop, me)
        finally:
            self.interrupts.release()
        if self.interrupts.was_pressed:
            signal.default_int_handler(signal.SIGINT, None)
        return has_led

    def _lead(self, leader: "ThreadMailbox | None", loop: ClientLoop, me: int) -> bool:
        """Run the loop, and let others do that from then on."""
        is_needed = True
        try:
            if not self._turn.acquire(blocking=False) or self._ending:
                return False
            self._runner, self.leader = me, leader
            self._turns += 1
            errors = loop.errors = list[BaseException]()
            if self._inbox:
                loop.call_soon(self._run_inbox, context=self._context)
            if leader is None:
                loop.run_once()
            else:
                loop.read_directly(leader.is_empty)  # nothing wakes it meanwhile
                if leader.must_wait() and not errors:
                    loop.run_forever()
            if errors:
                raise errors[0]  # noqa: TRY301 - it is treated as one that arrives otherwise
            is_needed = leader is not None and (leader.done or not (self._alone == me or self._is_alone(me)))
        except BaseException:
            # Raised into this thread from outside, and perhaps in the middle of a step: nothing is lost in silence.
            if self.connections is not None:
                self.submit(self.connections.drop)
            raise
        finally:
            if self._runner == me:
                self._runner = self.leader = loop.errors = None
            with suppress(RuntimeError):  # another thread has it
                self._turn.release()
                if self._inbox or is_needed:
                    self._needed.put(None)
        return True

    def _is_alone(self, thread: int | None) -> bool:
        """Return whether all callers that the loop serves wait in one thread."""
        callers = () if self.connections is None else self.connections.callers()
        if self._alone != thread and all(caller == thread for caller in callers):
            self._alone = thread
        return self._alone == thread

    @on_io_thread
    def offer_turn(self, leader: "ThreadMailbox") -> None:
        """Let a caller lead from now on if it waits alone."""
        if self._is_alone(leader.owner):
            self._offered = leader
            self.loop.stop()

    def ensure_running(self) -> None:
        """Wake the I/O thread if no thread runs the loop."""
        if self._runner is None:
            self._needed.put(None)

    def _rest(self) -> None:
        """Let callers lead; return when the thread is needed."""
        turns, is_needed = -1, False
        while not is_needed and (turns != self._turns or self._runner is not None):
            turns = self._turns
            try:
                self._needed.get(timeout=REST)
                is_needed = True
                while True:
                    self._needed.get_nowait()
            except Empty:
                pass

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
        self.ensure_running()
        self.join(EXIT_DEADLINE * 2)

    async def _close(self) -> None:
        if self.connections is not None:
            await asyncio.wait([asyncio.ensure_future(self.connections.close())], timeout=EXIT_DEADLINE)
        self._ending = True
        self.loop.stop()

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the event loop in the calling thread, unless callers lead, until it is stopped for good; and close it."""
        self.loop = loop  # this thread may be faster than the one that starts it
        asyncio.set_event_loop(loop)
        try:
            while not self._ending:
                with self._turn:
                    self._runner = threading.get_ident()
                    if self._inbox:
                        loop.call_soon(self._run_inbox, context=self._context)
                    loop.run_forever()
                    self._runner = None
                offered, self._offered = self._offered, None
                if offered is not None:
                    offered.wake()
                    if not self._inbox:
                        self._rest()
        finally:
            with self._turn:
                self._runner = threading.get_ident()
                try:
                    self._drain()
                finally:
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


def _class_in_this_process() -> type[IOThread]:
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return IOThread
    with door("support of gevent"):
        from lmstudio_integrations.client.transport.greenlets import GreenletIOThread  # noqa: PLC0415 - a leaf
    return GreenletIOThread


atexit.register(IOThread.close_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=IOThread.after_fork)
