"""Coroutines on the I/O thread that callers await like calls: pauses, downloads, waits for a turn.

`dispatcher.py` starts them; a flow waits for one with `wait_for`. Built on the waiters and the I/O thread.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from lmstudio_integrations.client.transport.waiters import Waiter
from lmstudio_integrations.protocol.session import client_closed

if TYPE_CHECKING:
    import asyncio

    from lmstudio_integrations.client.transport.io_thread import IOThread

T = TypeVar("T")


@dataclass(eq=False)
class IOTask(Generic[T]):
    """A coroutine on the I/O thread. The end of its `with` block cancels it, unless it has ended.

    Attributes:
        io: The thread.
        waiter: How the caller waits; it receives the result.
        work: Makes the coroutine.
        owner: The number of the client whose closing cancels it.
    """

    io: "IOThread"
    waiter: Waiter
    work: Callable[[], Coroutine[Any, Any, T]]
    owner: int = 0
    _task: "asyncio.Task[T] | None" = None

    def begin(self) -> None:
        """Start the coroutine (on the I/O thread)."""
        self._task = self.io.loop.create_task(self.work())
        self._task.add_done_callback(self._finish)

    def cancel(self) -> None:
        """Cancel the coroutine; a waiting caller gets an error (on the I/O thread)."""
        if self._task is not None:
            self._task.cancel()

    def _finish(self, task: "asyncio.Task[T]") -> None:
        error = client_closed() if task.cancelled() else task.exception()
        if error is None:
            self.waiter.put(task.result())
        self.waiter.finish(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is None or not self._task.done():  # not `waiter.done`: closing a stream ends its wait early
            self.io.submit(self.cancel)
