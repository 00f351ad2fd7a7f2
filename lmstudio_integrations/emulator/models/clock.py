"""The emulator's time: real, or moved by a test."""

import asyncio
import heapq
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Timer(Protocol):
    """A scheduled call."""

    def cancel(self) -> object:
        """Cancel the call."""


class Clock(Protocol):
    """The time as the emulator uses it. `call_later` is called on the emulator's event loop, and calls back there."""

    def now(self) -> float:
        """Return seconds from an arbitrary start, never decreasing."""
        ...

    def unix_ms(self) -> int:
        """Return the Unix time in milliseconds."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` once, after `seconds`."""
        ...


class SystemClock:
    """Real time."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def now(self) -> float:
        """Return seconds from an arbitrary start."""
        return time.perf_counter()

    def unix_ms(self) -> int:
        """Return the Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` once, after `seconds`."""
        return asyncio.get_running_loop().call_later(seconds, callback)


class ManualClock:
    """Time that stands still until a test moves it, from any thread.

    Args:
        unix_ms: The Unix time at the start, in milliseconds.
    """

    def __init__(self, unix_ms: int = 1_700_000_000_000) -> None:
        self._now = 0.0
        self._start = unix_ms
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._timers: list[tuple[float, int, _ManualTimer]] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._now} s>"

    def now(self) -> float:
        """Return the seconds that the clock was moved."""
        return self._now

    def unix_ms(self) -> int:
        """Return the Unix time in milliseconds."""
        return self._start + int(self._now * 1000)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` once, when a test has moved the clock by `seconds`."""
        timer = _ManualTimer(callback, asyncio.get_running_loop())
        with self._lock:
            heapq.heappush(self._timers, (self._now + seconds, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move the clock; calls that are due run on their own event loop, in order."""
        with self._lock:
            self._now += seconds
            due: list[_ManualTimer] = []
            while self._timers and self._timers[0][0] <= self._now:
                due.append(heapq.heappop(self._timers)[2])
        for timer in due:
            timer.loop.call_soon_threadsafe(timer.run)


@dataclass(slots=True, eq=False)
class _ManualTimer:
    """A call that is due when a test moves the clock."""

    callback: Callable[[], object]
    loop: asyncio.AbstractEventLoop
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True

    def run(self) -> None:
        """Call the callback, unless the timer was cancelled. Runs on the event loop that set it."""
        if not self.cancelled:
            self.callback()
