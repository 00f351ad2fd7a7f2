"""The client's event loop, as a caller may run it: in its own thread, for a while, without losing a Ctrl-C in it.

`io_thread.py` decides who runs it and when. A caller who reads a stream reads its socket directly as long as nothing
else happens in the loop.
"""

import asyncio
import selectors
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from contextvars import Context
from importlib import import_module
from typing import Any, Protocol, TypeVarTuple, Unpack

ArgumentsT = TypeVarTuple("ArgumentsT")

LATENESS = 0.1
"""Seconds by which timers of the loop may be late because a caller reads directly: as often, it lets the loop turn."""

_signal: Any = import_module("_signal")
"""What `signal` wraps: its enumerations would cost 16 µs for each token of a stream, and 70 for each call."""

_OTHER_SIGNALS = tuple(signal.valid_signals() - {signal.SIGINT})


class Leader(Protocol):
    """A caller who waits in a thread, and may run the loop meanwhile."""

    @property
    def owner(self) -> int | None:
        """The thread."""

    done: bool
    """Whether nothing more arrives for the caller."""

    def must_wait(self) -> bool:
        """Announce that the caller waits; return whether it must."""
        ...

    def wake(self) -> None:
        """Wake the caller, who does not run the loop."""


class DirectSocket(Protocol):
    """A socket that may be read without a turn of the loop."""

    def read_now(self, descriptor: int) -> bool:
        """Read what has arrived, and deliver it; return whether that could be done."""
        ...


class _Selector(selectors.DefaultSelector):
    """A selector that knows whether a thread waits in it."""

    is_waiting: bool = False
    """Whether a thread waits, also if an exception was raised into it there."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait until something is ready, and return it."""
        self.is_waiting = True
        ready = super().select(timeout)
        self.is_waiting = False
        return ready


class ClientLoop(asyncio.SelectorEventLoop):
    """An event loop that knows whether all that was due in it is done, and whether it is in the middle of a step."""

    def __init__(self) -> None:
        self._own_selector = _Selector()
        self._has_work = False
        self._turned_at = 0.0
        self.errors: list[BaseException] | None = None
        """Receives what ends a step while a caller runs the loop; otherwise it is only logged."""
        self.direct_sockets: dict[int, DirectSocket] = {}
        """The sockets without encryption, by their descriptors."""
        super().__init__(self._own_selector)

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for sockets, so that no step is torn by an exception that is raised there."""
        return self._own_selector.is_waiting

    def call_soon(
        self,
        callback: Callable[[Unpack[ArgumentsT]], object],
        *args: *ArgumentsT,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Schedule a callback."""
        self._has_work = True
        return super().call_soon(callback, *args, context=context)

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

    def read_directly(self, leader: Leader) -> None:
        """Wait and read for a caller, until something arrives for it, or anything else happens.

        A turn of the loop costs a token that comes alone 50 to 100 µs, because its code is in no cache then.
        """
        while self._has_work or self.time() >= self._turned_at + LATENESS:
            self.run_once()
        while leader.must_wait():
            ready = self._own_selector.select(LATENESS)
            if len(ready) != 1 or ready[0][1] != selectors.EVENT_READ:
                return
            descriptor = ready[0][0].fd
            socket = self.direct_sockets.get(descriptor)
            if socket is None or not socket.read_now(descriptor) or self._has_work:
                return


class InterruptHolder:
    """Holds Ctrl-C back while the loop runs in the main thread: its exception must not tear a step of the loop.

    Args:
        stop: Makes the loop return soon.
    """

    def __init__(self, stop: Callable[[], object]) -> None:
        self._stop = stop
        self._was_pressed = False

    @staticmethod
    def allows_loop() -> bool:
        """Return whether the loop may run in the calling thread, for all that handlers of signals do there.

        They run in the main thread only. The exception of Ctrl-C can be held back; any other handler may raise, or make
        a call, in the middle of a step.
        """
        if threading.get_ident() != threading.main_thread().ident:
            return True
        others: Iterable[Any] = map(_signal.getsignal, _OTHER_SIGNALS)
        return _signal.getsignal(signal.SIGINT) is signal.default_int_handler and not any(map(callable, others))

    @contextmanager
    def held(self) -> Generator[None]:
        """Hold it back in the block; at its end, raise the exception.

        Raises:
            KeyboardInterrupt: If Ctrl-C was pressed meanwhile.
        """
        if threading.get_ident() != threading.main_thread().ident:
            yield
            return
        self._was_pressed = False
        _signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            self.release()
        if self._was_pressed:
            signal.default_int_handler(signal.SIGINT, None)

    def release(self) -> None:
        """Let Ctrl-C raise its exception again, if it is held back: also in the child of a fork."""
        if _signal.getsignal(signal.SIGINT) == self._note:
            _signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, _number: int, _frame: object) -> None:
        self._was_pressed = True
        self._stop()
