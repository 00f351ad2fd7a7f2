"""Turns of models that evict each other: calls of one model finish before another model is loaded.

This is group mutual exclusion. `operations.py` gets a turn for each operation, but only on models that are known to
evict each other. The operation and its calls hold the turn until they end. `Turns` runs on the I/O thread.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmstudio_integrations.client.transport.waiters import Waiter
from lmstudio_integrations.client.transport.waiters import caller as current_caller
from lmstudio_integrations.errors import LMStudioTimeoutError
from lmstudio_integrations.protocol.exchange import Sink

if TYPE_CHECKING:
    import asyncio


@dataclass(eq=False)
class Turn:
    """One operation's turn on a model. Its caller creates it; the I/O thread grants it.

    Attributes:
        model_key: The model.
        holders: How many still hold it: the operation itself, and each call that it started. 0 before it is granted.
        granted: Set when it is granted; made by an operation that has to wait.
        ended: Whether the operation has ended.
        succeeded: Whether the operation succeeded.
        loaded: Whether the operation had to load the model.
        waiter: How the caller of the operation waits.
        caller: The thread or the task of the operation, until the operation returns.
    """

    model_key: str
    holders: int = 0
    granted: "asyncio.Future[None] | None" = None
    ended: bool = False
    succeeded: bool = False
    loaded: bool = False
    waiter: Waiter | None = None
    caller: object | None = field(default_factory=current_caller)

    def forget_caller(self) -> None:
        """Let nobody believe that the operation is still running, before the I/O thread has heard of its end."""
        self.waiter = self.caller = None

    def would_block(self, other: "Turn") -> bool:
        """Whether waiting for this one blocks the operation of another."""
        waiter, their = self.waiter, other.waiter
        return self.caller is other.caller or (waiter is not None and their is not None and waiter.would_block(their))


@dataclass(eq=False)
class _RunningModel:
    """The model that has its turn.

    Attributes:
        model_key: The model.
        turns: The turns of its operations that have holders.
        succeeded: Whether any of its operations succeeded.
        loaded: Whether any of them had to load it.
    """

    model_key: str
    turns: set[Turn] = field(default_factory=set[Turn])
    succeeded: bool = False
    loaded: bool = False


@dataclass(eq=False)
class Turns:
    """The turns on one server, by model.

    The model that has waited longest goes next, with all its waiting operations. No other operation joins them while
    another model waits.

    Attributes:
        on_coexist: Called with two models that turned out to be loaded side by side.
        _progressed_at: When a call of the running model last received a packet, or a model last ended its turn.
    """

    on_coexist: Callable[[str, str], object]
    _running: _RunningModel | None = None
    _previous: _RunningModel | None = None
    _queue: deque[Turn] = field(default_factory=deque[Turn])
    _progressed_at: float = 0.0

    async def wait(self, turn: Turn, queue_timeout: float | None, remaining_time: float | None) -> None:
        """Wait for a turn.

        Args:
            turn: The turn.
            queue_timeout: Seconds to wait while no call of the model that has its turn receives a packet.
            remaining_time: Seconds to wait in all: the rest of `timeout`.

        Raises:
            LMStudioTimeoutError: If either expired.
        """
        import asyncio  # noqa: PLC0415 - lazy: keeps import cheap

        # An operation that was cancelled may have ended before this begins; its turn would never end.
        if turn.ended or self._try_grant(turn):
            return
        turn.granted = asyncio.get_running_loop().create_future()
        self._queue.append(turn)  # `_advance` removes it when it grants the turn, `end` if this is given up
        begun = time.monotonic()
        while not turn.granted.done():
            since = max(begun, self._progressed_at)
            # Which timeout expires first, and when.
            expires, name = min(
                (math.inf if limit is None else start + limit, name)
                for name, start, limit in (("queue_timeout", since, queue_timeout), ("timeout", begun, remaining_time))
            )
            now = time.monotonic()
            if expires <= now:
                raise _expired(name, turn, self._running, now - begun)
            await asyncio.wait([turn.granted], timeout=None if expires == math.inf else expires - now)

    def would_deadlock(self, turn: Turn) -> bool:
        """Whether the wait for a turn would block an operation that has or awaits one, which never ends then.

        It blocks one of an event loop that its own thread runs, and one of its own caller, such as the call that a
        signal handler has interrupted. It is called by the thread that would wait, so neither can begin or end
        meanwhile.
        """
        running = self._running
        turns = [*self._queue, *(running.turns if running else ())]  # copied in one step each
        return any(not other.ended and turn.would_block(other) for other in turns)

    def shared_by(self, turn: Turn, sink: Sink) -> Sink:
        """Return the sink of a call that holds the turn until it ends, which may be after its operation."""
        turn.holders += 1
        return _TurnSink(sink, self, turn)

    def release(self, turn: Turn) -> None:
        """Let one holder release a turn. The last one ends it; after the last turn, the next model gets its turn."""
        turn.holders -= 1
        if turn.holders == 0:
            assert self._running is not None, "a turn with holders keeps its model running"
            self._running.turns.discard(turn)
            self._advance()

    def end(self, turn: Turn) -> None:
        """Record that the operation has ended, with its turn or while it waits for one."""
        if turn.ended:
            return
        turn.ended = True
        if turn in self._queue:
            self._queue.remove(turn)
            self._advance()
        elif turn.holders:
            assert self._running is not None, "a turn with holders keeps its model running"
            self._running.succeeded |= turn.succeeded
            self._running.loaded |= turn.loaded
            self.release(turn)

    def record_packet(self) -> None:
        """Restart `queue_timeout` of the waiting operations: the running one is not stuck."""
        self._progressed_at = time.monotonic()

    def _try_grant(self, turn: Turn) -> bool:
        """Grant a turn at once, if no other model is running or waiting."""
        if self._running is None:
            self._running = _RunningModel(turn.model_key)
        elif self._queue or self._running.model_key != turn.model_key:
            return False
        self._grant(self._running, turn)
        return True

    def _grant(self, running: _RunningModel, turn: Turn) -> None:
        turn.holders += 1
        running.turns.add(turn)
        if turn.granted is not None and not turn.granted.done():
            turn.granted.set_result(None)

    def _advance(self) -> None:
        """Once the running model has no turns, grant one to the first that waits, and to all for the same model."""
        ended = self._running
        if ended is None or ended.turns:
            return
        self.record_packet()
        self._detect_coexistence(ended)
        self._running = _RunningModel(self._queue[0].model_key) if self._queue else None
        waiting, self._queue = self._queue, deque()
        for turn in waiting:
            if self._running is not None and turn.model_key == self._running.model_key:
                self._grant(self._running, turn)
            else:
                self._queue.append(turn)

    def _detect_coexistence(self, ended: _RunningModel) -> None:
        """Report two models that were used in turn without a load in between: they no longer evict each other."""
        before = self._previous
        if not ended.succeeded:
            return
        if before is not None and before.model_key != ended.model_key and not ended.loaded:
            self.on_coexist(before.model_key, ended.model_key)
        self._previous = ended


@dataclass
class _TurnSink:
    """The sink of a call that holds a turn until the server has ended the call, even if its reader is slow."""

    _sink: Sink
    _turns: Turns
    _turn: Turn

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


def _expired(name: str, turn: Turn, running: _RunningModel | None, elapsed: float) -> LMStudioTimeoutError:
    other = "another model" if running is None else repr(running.model_key)
    return LMStudioTimeoutError(
        f"timed out waiting to load {turn.model_key!r}: it would evict {other}, which still has running calls; "
        f"{name} expired; raise {name}, or set it to None",
        timeout_name=name,
        elapsed=elapsed,
    )
