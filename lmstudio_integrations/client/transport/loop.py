"""The client's event loop, as a caller may run it: in its own thread, for a while, without losing a Ctrl-C in it.

`io_thread.py` decides who runs it and when. A caller who reads a stream reads its socket directly as long as nothing
else happens in the loop.
"""

import asyncio
import selectors
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextvars import Context
from functools import partial
from importlib import import_module
from typing import Any, TypeVarTuple, Unpack

from lmstudio_integrations._support.threads import run_in_thread

ArgumentsT = TypeVarTuple("ArgumentsT")

LATENESS = 0.1
"""Seconds by which timers of the loop may be late because a caller reads directly: as often, it lets the loop turn."""

_signal: Any = import_module("_signal")
"""What `signal` wraps: its enumerations would cost 16 µs for each token of a stream, and 70 for each call."""

_OTHER_SIGNALS = tuple(signal.valid_signals() - {signal.SIGINT})


class ClientLoop(asyncio.SelectorEventLoop):
    """An event loop that knows whether all that was due in it is done."""

    def __init__(self) -> None:
        self._own_selector = selectors.DefaultSelector()
        self._has_work = False
        self._turned_at = 0.0
        self.errors: list[BaseException] | None = None
        """Receives what ends a step while a caller runs the loop; otherwise it is only logged."""
        self.direct_readers: dict[int, Callable[[], bool]] = {}
        """What reads from a socket without encryption and delivers that, by its descriptor; false if it cannot."""
        super().__init__(self._own_selector)

    def call_soon(
        self,
        callback: Callable[[Unpack[ArgumentsT]], object],
        *args: *ArgumentsT,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Schedule a callback."""
        self._has_work = True
        return super().call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":  # type: ignore[override]  # whatever it returns
        """Run what blocks in a daemon thread of its own, such as looking up a name.

        The pool of asyncio takes nothing more once the main thread has ended, although other threads and exit handlers
        still make calls; and the process would wait for it at its end.
        """
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        try:
            running: Future[Any] = run_in_thread(partial(func, *args), "lmstudio-blocking")
        except RuntimeError:  # the process is ending: Python 3.12.1 starts no thread then
            running = Future()
            running.set_result(func(*args))
        return asyncio.wrap_future(running, loop=self)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Let the caller who runs the loop raise the error that ends a step; log any other."""
        if self.errors is None or "handle" not in context or "exception" not in context:
            super().call_exception_handler(context)
            return
        self.errors.append(context["exception"])
        self.stop()

    def run_once(self) -> None:
        """Run what is due, and return."""
        self._has_work, self._turned_at = False, self.time()
        self.stop()
        self.run_forever()

    def read_directly(self, is_empty: Callable[[], bool]) -> None:
        """Wait and read for a caller as long as its mailbox is empty, and nothing else happens.

        A turn of the loop costs a token that comes alone 50 to 100 µs, because its code is in no cache then.
        """
        while self._has_work or self.time() >= self._turned_at + LATENESS:
            self.run_once()
        while is_empty() and not self.errors:
            ready = self._own_selector.select(LATENESS)
            if len(ready) != 1 or ready[0][1] != selectors.EVENT_READ:
                return
            read = self.direct_readers.get(ready[0][0].fd)
            if read is None or not read() or self._has_work:
                return


class InterruptHolder:
    """Holds Ctrl-C back while the loop runs in the main thread: its exception must not tear a step of the loop.

    Args:
        stop: Makes the loop return soon.
    """

    def __init__(self, stop: Callable[[], object]) -> None:
        self._stop = stop
        self.was_pressed: bool = False

    @staticmethod
    def allows_loop() -> bool:
        """Return whether the loop may run in the main thread, for all that handlers of signals do there.

        The exception of Ctrl-C can be held back; any other handler may raise, or make a call, in the middle of a step.
        """
        others: Iterable[Any] = map(_signal.getsignal, _OTHER_SIGNALS)
        return _signal.getsignal(signal.SIGINT) is signal.default_int_handler and not any(map(callable, others))

    def hold(self) -> bool:
        """Hold it back in the main thread until `release`; return whether the loop may run there."""
        if not self.allows_loop():
            return False
        self.was_pressed = False
        _signal.signal(signal.SIGINT, self._note)
        return True

    def release(self) -> None:
        """Let Ctrl-C raise its exception again."""
        _signal.signal(signal.SIGINT, signal.default_int_handler)

    def release_after_fork(self) -> None:
        """Do the same in a forked child, if it was held back."""
        if _signal.getsignal(signal.SIGINT) == self._note:
            self.release()

    def _note(self, _number: int, _frame: object) -> None:
        self.was_pressed = True
        self._stop()
