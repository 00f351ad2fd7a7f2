"""A block that others may cancel, with a reason. Everything here belongs to one event loop."""

import asyncio
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
