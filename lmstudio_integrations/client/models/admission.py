"""Admission: who may go on, and who waits. Three primitives, shared by all clients of the process.

- `EvictionQueue`: calls of one model finish before another model, which would evict it, is loaded.
- `SingleFlight`: one of several callers loads a model, and the others wait for it.
- `ConcurrencyLimiter`: as many operations run on one model at once as each of them allows, and the others wait.

Each has `wait`, which runs on the I/O thread until the caller may go on, and `end`, which runs there when an operation
or the load has ended, even before it was admitted. Whoever would wait for its own event loop or thread must not wait:
`EvictionQueue.would_deadlock`, the `deadlock` of `SingleFlight.run` and the `None` of `ConcurrencyLimiter.acquire` are
about that.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.flows import Flow, T
from lmstudio_integrations.client.transport.io_thread import on_io_thread
from lmstudio_integrations.client.transport.mailboxes import Mailbox, copy_of, current_thread_or_task
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioTimeoutError
from lmstudio_integrations.protocol.exchange import Receiver
from lmstudio_integrations.types.timeouts import EXPIRIES

# Eviction queue -------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class EvictionTurn:
    """One operation's turn on a model that others evict. Its caller creates it; the I/O thread grants it.

    Attributes:
        model_key: The model.
        holders: How many still hold it: the operation itself, and each call that it started. 0 before it is granted.
        granted: Set when it is granted; made by an operation that has to wait.
        ended: Whether the operation has ended.
        succeeded: Whether the operation succeeded.
        loaded: Whether the operation had to load the model.
        loads_before: How many loads the operation had made before it got the turn.
        mailbox: Where the caller of the operation waits.
        caller: The thread or the task of the operation, until the operation returns.
    """

    model_key: str
    holders: int = 0
    granted: asyncio.Future[None] | None = None
    ended: bool = False
    succeeded: bool = False
    loaded: bool = False
    loads_before: int = 0
    mailbox: Mailbox | None = None
    caller: object | None = field(default_factory=current_thread_or_task)

    def forget_caller(self) -> None:
        """Let nobody believe that the operation is still running, before the I/O thread has heard of its end."""
        self.mailbox = self.caller = None

    def would_block(self, other: "EvictionTurn") -> bool:
        """Whether waiting for this one blocks the operation of another."""
        mailbox, their = self.mailbox, other.mailbox
        return self.caller is other.caller or (mailbox is not None and their is not None and mailbox.would_block(their))


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
    turns: set[EvictionTurn] = field(default_factory=set[EvictionTurn])
    succeeded: bool = False
    loaded: bool = False


@dataclass(eq=False)
class EvictionQueue:
    """The queue of operations on models that evict each other, on one server.

    The model that has waited longest goes next, with all its waiting operations. No other operation joins them while
    another model waits.

    Attributes:
        on_coexist: Called with two models that turned out to be loaded side by side.
        _progressed_at: When a call of the running model last received a packet, or a model last ended its turn.
    """

    on_coexist: Callable[[str, str], object]
    _running: _RunningModel | None = None
    _previous: _RunningModel | None = None
    _waiting: deque[EvictionTurn] = field(default_factory=deque[EvictionTurn])
    _progressed_at: float = 0.0

    async def wait(self, turn: EvictionTurn, queue_timeout: float | None, remaining_time: float | None) -> None:
        """Wait for a turn.

        Args:
            turn: The turn.
            queue_timeout: Seconds to wait while no call of the model that has its turn receives a packet.
            remaining_time: Seconds to wait in all: the rest of `timeout`.

        Raises:
            LMStudioTimeoutError: If either expired.
        """
        # An operation that was cancelled may have ended before this begins; its turn would never end.
        if turn.ended or self._try_grant(turn):
            return
        turn.granted = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)  # `_advance` removes it when it grants the turn, `end` if this is given up
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
                raise _timeout_error(name, turn, self._running, now - begun)
            await asyncio.wait([turn.granted], timeout=None if expires == math.inf else expires - now)

    def would_deadlock(self, turn: EvictionTurn) -> bool:
        """Whether the wait for a turn would block an operation that has or awaits one, which never ends then.

        It blocks one of an event loop that its own thread runs, and one of its own caller, such as the call that a
        signal handler has interrupted. It is called by the thread that would wait, so neither can begin or end
        meanwhile. The I/O thread may grant a turn meanwhile: it adds it to the running ones before it removes it from
        the waiting ones, which are read first.
        """
        waiting = self._waiting.copy()  # one step, which `list` of a deque is not
        running = self._running
        turns = [*waiting, *(running.turns if running else ())]
        return any(not other.ended and turn.would_block(other) for other in turns)

    @on_io_thread
    def hold(self, turn: EvictionTurn, receiver: Receiver) -> Receiver:
        """Return the receiver of a call that holds the turn until it ends, which may be after its operation."""
        turn.holders += 1
        return _TurnReceiver(receiver, self, turn)

    @on_io_thread
    def release(self, turn: EvictionTurn) -> None:
        """Let one holder release a turn. The last one ends it; after the last turn, the next model gets its turn."""
        turn.holders -= 1
        if turn.holders == 0:
            assert self._running is not None, "a turn with holders keeps its model running"
            self._running.turns.discard(turn)
            self._advance()

    @on_io_thread
    def end(self, turn: EvictionTurn) -> None:
        """Record that the operation has ended, with its turn or while it waits for one."""
        if turn.ended:
            return
        turn.ended = True
        if turn in self._waiting:
            self._waiting.remove(turn)
            self._advance()
        elif turn.holders:
            assert self._running is not None, "a turn with holders keeps its model running"
            self._running.succeeded |= turn.succeeded
            self._running.loaded |= turn.loaded
            self.release(turn)

    def record_progress(self) -> None:
        """Restart `queue_timeout` of the waiting operations: the running one is not stuck."""
        self._progressed_at = time.monotonic()

    def _try_grant(self, turn: EvictionTurn) -> bool:
        """Grant a turn at once, if no other model is running or waiting."""
        if self._running is None:
            self._running = _RunningModel(turn.model_key)
        elif self._waiting or self._running.model_key != turn.model_key:
            return False
        self._grant(self._running, turn)
        return True

    def _grant(self, running: _RunningModel, turn: EvictionTurn) -> None:
        turn.holders += 1
        running.turns.add(turn)
        if turn.granted is not None and not turn.granted.done():
            turn.granted.set_result(None)

    def _advance(self) -> None:
        """Grant turns to those that wait first, if that is for the running model, or if that has no turns any more."""
        ended = self._running
        if ended is None:
            return
        if ended.turns:  # who waited for another model may have given up
            while self._waiting and self._waiting[0].model_key == ended.model_key:
                self._grant(ended, self._waiting[0])
                self._waiting.popleft()
            return
        self.record_progress()
        self._detect_coexistence(ended)
        self._running = running = _RunningModel(self._waiting[0].model_key) if self._waiting else None
        if running is not None:
            for turn in self._waiting:
                if turn.model_key == running.model_key:
                    self._grant(running, turn)
            self._waiting = deque(turn for turn in self._waiting if turn not in running.turns)

    def _detect_coexistence(self, ended: _RunningModel) -> None:
        """Report two models that were used in turn without a load in between: they no longer evict each other."""
        before = self._previous
        if not ended.succeeded:
            return
        if before is not None and before.model_key != ended.model_key and not ended.loaded:
            self.on_coexist(before.model_key, ended.model_key)
        self._previous = ended


@dataclass
class _TurnReceiver:
    """The receiver of a call that holds a turn until the server has ended the call, even if its reader is slow."""

    _receiver: Receiver
    _queue: EvictionQueue
    _turn: EvictionTurn

    def put(self, item: Any) -> None:
        self._queue.record_progress()
        self._receiver.put(item)

    def finish(self, error: BaseException | None) -> None:
        self._receiver.finish(error)
        self._queue.release(self._turn)

    def is_alive(self) -> bool:
        return self._receiver.is_alive()


def _timeout_error(
    name: str, turn: EvictionTurn, running: _RunningModel | None, elapsed: float
) -> LMStudioTimeoutError:
    other = "another model" if running is None else repr(running.model_key)
    return LMStudioTimeoutError(
        f"timed out waiting to load {turn.model_key!r}: it would evict {other}, which still has running calls; "
        f"{name} expired; {EXPIRIES[name].remedy}",
        timeout_name=name,
        elapsed=elapsed,
    )


# Single flight --------------------------------------------------------------------------------------------------------


class SingleFlight:
    """Work that one caller does, the leader, and others wait for.

    Args:
        leader: The mailbox of the leader.
    """

    def __init__(self, leader: Mailbox) -> None:
        self.leader = leader
        self._thread_or_task = current_thread_or_task()
        self._ended = asyncio.Event()
        self._error: Exception | None = None

    @classmethod
    def run(
        cls,
        operation: Operation,
        running: dict[Hashable, "SingleFlight"],
        key: Hashable,
        work: Flow[T],
        *,
        errors: type[Exception] | tuple[()],
        deadlock: Exception | None = None,
    ) -> Flow[T | None]:
        """Do the work and return its result; if another caller does it, wait for that and return `None`.

        The caller then checks whether the work is done: the leader may have been cancelled, or may have failed with an
        error that is not shared.

        Args:
            operation: Waits.
            running: The work that is running.
            key: Names the work.
            work: The work.
            errors: Those of the leader that the waiting callers raise as well.
            deadlock: Raised if waiting would never end; `None` returns without waiting.
        """
        own = cls(operation.context.new_mailbox())
        try:
            # `setdefault` is one step. No lock: a finalizer may run this while its own thread holds the lock.
            flight = running.setdefault(key, own)
            if flight.leader.is_lost:
                flight = running[key] = own
            if flight is own:
                return (yield from work)
        except errors as failure:
            own._error = failure
            raise
        finally:  # also if a signal handler raises between two lines above
            if running.get(key) is own:  # after a fork, several threads may take over from a lost leader
                del running[key]
            operation.context.submit(own.end)
        if not flight.would_deadlock(own.leader):
            remaining = operation.remaining_time
            yield from operation.context.run_task(lambda: flight.wait(remaining))
        elif deadlock is not None:
            raise deadlock
        return None

    def would_deadlock(self, mailbox: Mailbox) -> bool:
        """Whether waiting would block the leader: its event loop, or itself in a callback of its load."""
        if mailbox.runs_with(self.leader):
            return False
        return mailbox.would_block(self.leader) or self._thread_or_task is current_thread_or_task()

    async def wait(self, remaining_time: float | None) -> None:
        """Wait until it has ended; fail if it failed.

        Raises:
            LMStudioTimeoutError: If that takes longer than the caller has.
            Exception: The error of the leader, if it is shared.
        """
        try:
            async with asyncio.timeout(remaining_time):
                await self._ended.wait()
        except TimeoutError:
            raise LMStudioTimeoutError(
                f"Model load: timed out waiting for another call that loads the model; {EXPIRIES['timeout'].remedy}",
                timeout_name="timeout",
            ) from None
        if self._error is not None:
            raise copy_of(self._error)

    @on_io_thread
    def end(self) -> None:
        """Wake the waiting callers."""
        self._ended.set()


# Concurrency limiter --------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Permit:
    """One operation on a model, from its request until its end. It may end before it was admitted.

    Attributes:
        key: The model, and the event loop of the caller.
        borrower: The key, and the thread or task.
        max_concurrency: How many operations may run while this one does.
        limiter: What admitted it, until it ends.
        ended: Whether it has ended.
    """

    key: Hashable
    borrower: Hashable
    max_concurrency: int
    limiter: "_ModelLimiter | None" = None
    ended: bool = False


class _ModelLimiter:
    """The operations on one model, in the order in which they came. No more run at once than each of them allows."""

    def __init__(self) -> None:
        self._running: set[Permit] = set()
        self._waiting: deque[tuple[Permit, asyncio.Future[None]]] = deque()

    async def acquire(self, permit: Permit) -> None:
        admitted = asyncio.get_running_loop().create_future()
        self._waiting.append((permit, admitted))
        self._advance()
        try:
            await admitted
        except asyncio.CancelledError:
            self.release(permit)
            raise

    def release(self, permit: Permit) -> None:
        self._running.discard(permit)
        self._advance()

    def _advance(self) -> None:
        while self._waiting:
            permit, admitted = self._waiting[0]
            if not admitted.cancelled():
                if len(self._running) >= min(each.max_concurrency for each in (permit, *self._running)):
                    break
                self._running.add(permit)
                admitted.set_result(None)
            self._waiting.popleft()


class ConcurrencyLimiter:
    """The limits of one server, one for each model and kind of caller.

    Threads share one limit, and the tasks of each event loop have their own: a thread that blocks an event loop must
    not wait for tasks of that loop. A permit keeps its limit alive; one without permits is dropped.
    """

    def __init__(self) -> None:
        self.permits: dict[Hashable, Permit] = {}
        """The operation of each thread or task on each model; any thread may change it, in one step."""
        self._limiters: WeakValueDictionary[Hashable, _ModelLimiter] = WeakValueDictionary()

    def acquire(self, context: ClientContext, model: Hashable, max_concurrency: int) -> Flow[Permit | None]:
        """Wait until fewer than `max_concurrency` operations run on a model; return what `release` takes.

        A signal handler must not wait for the call that it has interrupted, and gets `None`.
        """
        key = model, context.new_mailbox().loop
        permit = Permit(key, (key, current_thread_or_task()), max_concurrency)
        if self.permits.setdefault(permit.borrower, permit) is not permit:
            return None
        try:
            yield from context.run_task(lambda: self.wait(permit))
        except BaseException:
            self.release(context, permit)
            raise
        return permit

    def release(self, context: ClientContext, permit: Permit | None) -> None:
        """Record that an operation has ended."""
        if permit is not None:
            del self.permits[permit.borrower]
            context.submit(self.end, permit)

    async def wait(self, permit: Permit) -> None:
        """Wait until its limit, and those of the running operations, allow one more, and admit this one."""
        limiter = self._limiters.setdefault(permit.key, _ModelLimiter())
        await limiter.acquire(permit)
        permit.limiter = limiter
        if permit.ended:  # it was cancelled meanwhile, and nobody else releases what it got
            self.end(permit)

    @on_io_thread
    def end(self, permit: Permit) -> None:
        """End an operation, and admit the next one."""
        permit.ended = True
        limiter, permit.limiter = permit.limiter, None
        if limiter is not None:
            limiter.release(permit)
