"""Admission: who may go on, and who waits. Two primitives, shared by all clients of the process.

- `SingleFlight`: one of several callers loads a model, and the others wait for it.
- `ConcurrencyLimiter`: as many operations run on one model at once as each of them allows, and the others wait.

Each has `wait`, which runs on the I/O thread until the caller may go on, and `end`, which runs there when an operation
or the load has ended, even before it was admitted. Whoever would wait for its own event loop or thread must not wait:
the `deadlock` of `SingleFlight.run` and the `None` of `ConcurrencyLimiter.acquire` are about that.
"""

import asyncio
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from lmstudio_integrations.client.concurrency.flows import Flow, T
from lmstudio_integrations.client.concurrency.io_thread import on_io_thread
from lmstudio_integrations.client.concurrency.mailboxes import Mailbox, current_thread_or_task
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioCancelledError, LMStudioTimeoutError
from lmstudio_integrations.protocol.errors import copy_of
from lmstudio_integrations.types.timeouts import EXPIRIES

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
            if not isinstance(failure, LMStudioCancelledError):  # only the leader was
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
                "Model load: timed out waiting for another call that loads the model; "
                f"{EXPIRIES['total_timeout'].remedy}",
                timeout_name="total_timeout",
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
