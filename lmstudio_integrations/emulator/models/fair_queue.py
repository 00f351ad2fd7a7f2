"""A cancel scope with a reason, and a fair queue for slots.

Everything here belongs to one event loop.
"""

import asyncio
from collections import OrderedDict
from types import TracebackType
from typing import Self


class CancelScope:
    """A block that others may cancel, with a reason.

    Used as a context manager. Cancelling interrupts the block at whatever it awaits; the block ends without an
    error, and `reason` is set.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._task: asyncio.Task[object] | None = None
        self._interrupted = False

    def cancel(self, reason: str) -> None:
        """Cancel the block, now or before it starts. The first reason stays."""
        if self.reason is None:
            self.reason = reason
            self._interrupt()

    def __enter__(self) -> Self:
        assert self._task is None, "a scope holds one block at a time"
        self._task = asyncio.current_task()
        assert self._task is not None, "work runs in a task"
        if self.reason is not None:
            self._interrupt()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        task, self._task = self._task, None
        assert task is not None, "the block was entered"
        interrupted, self._interrupted = self._interrupted, False
        if not interrupted:
            return False
        # This scope requested one cancellation; another one means that the whole task is cancelled.
        return task.uncancel() == 0 and (kind is None or issubclass(kind, asyncio.CancelledError))

    def _interrupt(self) -> None:
        """Interrupt the block, if there is one; while it runs, wait until it awaits something."""
        # Before Python 3.13, a task that does not await again in the block would keep the cancellation after it.
        if self._task is not None and self._task is asyncio.current_task():
            asyncio.get_running_loop().call_soon(self._interrupt)
        elif self._task is not None and not self._interrupted:
            self._interrupted = True
            self._task.cancel()


_Waiters = OrderedDict[asyncio.Future[None], None]
"""Waiters in order, with quick removal of any: a client with very many of them may disconnect."""


class FairQueue:
    """A number of slots, given to waiting clients in turn, so that no client waits behind all requests of another.

    Args:
        slots: How many requests may run at once.
    """

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._waiting: OrderedDict[str, _Waiters] = OrderedDict()
        self.running: int = 0
        """How many requests run."""

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return sum(len(waiters) for waiters in self._waiting.values())

    async def acquire(self, client: str) -> None:
        """Wait for a slot; `release` gives it back."""
        if self._free and not self._waiting:
            self._free -= 1
        else:
            await self._wait(client)
        self.running += 1

    def release(self) -> None:
        """Give a slot back."""
        self.running -= 1
        self._free += 1
        self._grant()

    async def _wait(self, client: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, OrderedDict())[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                waiters = self._waiting.get(client, OrderedDict())
                waiters.pop(turn, None)
                if not waiters:
                    self._waiting.pop(client, None)
            else:  # the slot was granted at the same moment
                self._free += 1
                self._grant()
            raise

    def _grant(self) -> None:
        """Grant free slots to the first waiter of each client, one client after the other."""
        while self._free and self._waiting:
            client, waiters = self._waiting.popitem(last=False)
            turn, _ = waiters.popitem(last=False)
            if waiters:
                self._waiting[client] = waiters
            if not turn.cancelled():
                self._free -= 1
                turn.set_result(None)
