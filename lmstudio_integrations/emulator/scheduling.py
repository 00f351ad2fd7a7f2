"""Work that can be stopped from outside, and the queue in which it waits for its turn.

Everything here belongs to one event loop.
"""

import asyncio
from collections import OrderedDict
from types import TracebackType
from typing import Self


class CancelScope:
    """A block of work that others may stop, giving a reason.

    Used as a context manager. Stopping interrupts the block at whatever it awaits; the block ends without an
    error, and `reason` says why.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._task: asyncio.Task[object] | None = None

    def stop(self, reason: str) -> None:
        """Stop the work, now or before it starts. The first reason stays."""
        if self.reason is None:
            self.reason = reason
            if self._task is not None:
                self._task.cancel()

    def __enter__(self) -> Self:
        assert self._task is None, "a scope holds one block at a time"
        self._task = asyncio.current_task()
        assert self._task is not None, "work runs in a task"
        if self.reason is not None:
            self._task.cancel()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        task, self._task = self._task, None
        assert task is not None, "the block was entered"
        if self.reason is None:
            return False
        # The stop took one cancellation; another one means that the whole task is to go.
        return task.uncancel() == 0 and (kind is None or issubclass(kind, asyncio.CancelledError))


_Line = OrderedDict[asyncio.Future[None], None]
"""Those who wait, in order. Any of them can give up quickly, as all do when a client with very many disconnects."""


class FairQueue:
    """A number of places, given in turn to the clients that wait, so that none waits behind all work of another.

    Args:
        places: How many may work at once.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: OrderedDict[str, _Line] = OrderedDict()
        self.running: int = 0
        """How many work."""

    @property
    def queued(self) -> int:
        """How many wait."""
        return sum(len(line) for line in self._waiting.values())

    async def enter(self, client: str) -> None:
        """Wait for a place; `leave` gives it back."""
        if self._free and not self._waiting:
            self._free -= 1
        else:
            await self._wait(client)
        self.running += 1

    def leave(self) -> None:
        """Give a place back."""
        self.running -= 1
        self._free += 1
        self._admit()

    async def _wait(self, client: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, OrderedDict())[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(client, turn)
            else:  # the place came in the same moment
                self._free += 1
                self._admit()
            raise

    def _admit(self) -> None:
        """Give free places to the first of each client, one client after the other."""
        while self._free and self._waiting:
            client, line = self._waiting.popitem(last=False)
            turn, _ = line.popitem(last=False)
            if line:
                self._waiting[client] = line
            if not turn.cancelled():
                self._free -= 1
                turn.set_result(None)

    def _forget(self, client: str, turn: asyncio.Future[None]) -> None:
        line = self._waiting.get(client)
        if line is not None and turn in line:
            del line[turn]
            if not line:
                del self._waiting[client]
