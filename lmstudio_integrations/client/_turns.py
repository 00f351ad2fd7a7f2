"""Turns on a server: calls of one model finish before another model is loaded that evicts it.

This is group mutual exclusion. `_operations.py` gets a turn for each operation, but only on models that are known to
evict each other. The calls of the operation share the turn until they end. `Turns` runs on the I/O thread.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lmstudio_integrations.errors import LMStudioTimeoutError
from lmstudio_integrations.protocol.exchange import Sink

if TYPE_CHECKING:
    import asyncio


class Turn:
    """One operation's turn on a model. Its caller creates it; the I/O thread grants it.

    Args:
        model_key: The model.

    Attributes:
        shares: How many still use it: the operation itself, and each call that it started. 0 before it is granted.
        granted: Set when it is granted.
        ended: Whether the operation has ended.
        used: Whether the operation succeeded.
        loaded: Whether the operation had to load the model.
    """

    def __init__(self, model_key: str) -> None:
        self.model_key = model_key
        self.shares = 0
        self.granted: asyncio.Future[None] | None = None
        self.ended = False
        self.used = False
        self.loaded = False


class _Group:
    """The operations that run on one model, until another model has its turn."""

    def __init__(self, model_key: str) -> None:
        self.model_key = model_key
        self.turns: set[Turn] = set()
        self.used = False
        self.loaded = False


class Turns:
    """The turns on one server, in batches by model.

    The model that has waited longest goes next, with all its waiting operations. None joins while another model waits.

    Args:
        on_no_eviction: Called with two models that turned out to fit side by side.
    """

    def __init__(self, on_no_eviction: Callable[[str, str], object]) -> None:
        self._on_no_eviction = on_no_eviction
        self._group: _Group | None = None
        self._previous: _Group | None = None
        self._line: deque[Turn] = deque()
        self._moved_at = 0.0

    async def wait(self, turn: Turn, queue_timeout: float | None, remaining_time: float | None) -> None:
        """Wait for a turn.

        Args:
            turn: The turn.
            queue_timeout: Seconds to wait while no call of the model that has its turn receives a packet.
            remaining_time: Seconds to wait in all: the rest of `timeout`.

        Raises:
            LMStudioTimeoutError: If either expired.
        """
        import asyncio  # noqa: PLC0415 - the I/O thread has loaded it

        if turn.ended or self._joins(turn):
            return
        turn.granted = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        begun = time.monotonic()
        while not turn.granted.done():
            since = max(begun, self._moved_at)
            name, expires = _first_to_expire(
                ("queue_timeout", since, queue_timeout), ("timeout", begun, remaining_time)
            )
            now = time.monotonic()
            if expires <= now:
                raise _expired(name, turn, self._group, now - begun)
            await asyncio.wait([turn.granted], timeout=None if expires == _NEVER else expires - now)

    def shared_by(self, turn: Turn, sink: Sink) -> Sink:
        """Return the sink of a call that shares the turn until it ends, which may be after its operation."""
        turn.shares += 1
        return _TurnSink(sink, self, turn)

    def release(self, turn: Turn) -> None:
        """Give back one share of a turn; the last one ends the turn, and the next model gets its turn."""
        turn.shares -= 1
        if turn.shares == 0 and self._group is not None:
            self._group.turns.discard(turn)
            self._next()

    def end(self, turn: Turn) -> None:
        """Record that the operation has ended, with its turn or while it waits for one."""
        if turn.ended:
            return
        turn.ended = True
        if turn in self._line:
            self._line.remove(turn)
            self._next()
        elif turn.shares and self._group is not None:
            self._group.used |= turn.used
            self._group.loaded |= turn.loaded
            self.release(turn)

    def record_packet(self) -> None:
        """Restart `queue_timeout` of the waiting operations: the running one is not stuck."""
        self._moved_at = time.monotonic()

    def _joins(self, turn: Turn) -> bool:
        """Grant a turn at once, if no other model is running or waiting."""
        if self._group is None:
            self._group = _Group(turn.model_key)
        elif self._line or self._group.model_key != turn.model_key:
            return False
        self._grant(self._group, turn)
        return True

    def _grant(self, group: _Group, turn: Turn) -> None:
        turn.shares += 1
        group.turns.add(turn)
        if turn.granted is not None and not turn.granted.done():
            turn.granted.set_result(None)

    def _next(self) -> None:
        """Once the running model has no turns, grant one to the first that waits, and to all for the same model."""
        ended = self._group
        if ended is None or ended.turns:
            return
        self.record_packet()
        self._check(ended)
        if not self._line:
            self._group = None
            return
        group = self._group = _Group(self._line[0].model_key)
        waiting, self._line = self._line, deque()
        for turn in waiting:
            if turn.model_key == group.model_key:
                self._grant(group, turn)
            else:
                self._line.append(turn)

    def _check(self, ended: _Group) -> None:
        """Report two models that were used in turn without a load in between: they no longer evict each other."""
        before = self._previous
        if not ended.used:
            return
        if before is not None and before.model_key != ended.model_key and not ended.loaded:
            self._on_no_eviction(before.model_key, ended.model_key)
        self._previous = ended


class _TurnSink:
    """The sink of a call that shares a turn until the server has ended the call, even if its reader is slow."""

    def __init__(self, sink: Sink, turns: Turns, turn: Turn) -> None:
        self._sink = sink
        self._turns = turns
        self._turn = turn

    def put(self, item: Any) -> None:
        """Forward a packet."""
        self._turns.record_packet()
        self._sink.put(item)

    def finish(self, error: BaseException | None) -> None:
        """Forward the end, and release the turn."""
        self._sink.finish(error)
        self._turns.release(self._turn)

    def is_alive(self) -> bool:
        """Whether the caller can still be woken."""
        return self._sink.is_alive()


_NEVER = float("inf")


def _first_to_expire(*timeouts: tuple[str, float, float | None]) -> tuple[str, float]:
    """Return which timeout expires first, and when."""
    due = [(_NEVER if limit is None else since + limit, name) for name, since, limit in timeouts]
    expires, name = min(due)
    return name, expires


def _expired(name: str, turn: Turn, group: _Group | None, elapsed: float) -> LMStudioTimeoutError:
    running = "another model" if group is None else repr(group.model_key)
    return LMStudioTimeoutError(
        f"timed out waiting to load {turn.model_key!r}: it would evict {running}, which still has running calls; "
        f"{name} expired after {elapsed:.1f} s; raise {name}, or set it to None",
        timeout_name=name,
        elapsed=elapsed,
    )
