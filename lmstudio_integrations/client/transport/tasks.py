"""Coroutines on the I/O thread that callers wait for like calls: pauses, downloads, turns.

`ClientContext.run_task` starts them. Built on the mailboxes and the I/O thread.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic

from lmstudio_integrations.client.transport.flows import Flow, T
from lmstudio_integrations.client.transport.io_thread import IOThread, on_io_thread
from lmstudio_integrations.client.transport.mailboxes import Mailbox
from lmstudio_integrations.protocol.session import client_closed


@dataclass(eq=False)
class IOTask(Generic[T]):
    """A coroutine on the I/O thread.

    Attributes:
        io: The thread.
        mailbox: Where the caller waits; it receives the result.
        work: Makes the coroutine.
        client_id: Stands for the client whose closing cancels it.
    """

    io: IOThread
    mailbox: Mailbox
    work: Callable[[], Coroutine[Any, Any, T]]
    client_id: object = None
    _task: "asyncio.Task[T] | None" = None

    @on_io_thread
    def begin(self, on_end: "Callable[[IOTask[T]], object]" = lambda _: None) -> None:
        """Start the coroutine; at its end, call `on_end` on the thread."""
        self._task = self.io.loop.create_task(self.work())
        self._task.add_done_callback(self._finish)
        self._task.add_done_callback(lambda _: on_end(self))

    @on_io_thread
    def cancel(self) -> None:
        """Cancel the coroutine; a waiting caller gets an error."""
        if self._task is not None:
            self._task.cancel()

    def result(self) -> Flow[T]:
        """Wait for the result. Ending the wait early cancels the coroutine."""
        try:
            (result,) = yield self
        finally:
            if self._task is None or not self._task.done():  # not `mailbox.done`: closing a stream ends its wait early
                self.io.submit(self.cancel)
        return result  # type: ignore[no-any-return]  # what a step receives has any type

    def _finish(self, task: "asyncio.Task[T]") -> None:
        error = client_closed() if task.cancelled() else task.exception()
        if error is None:
            self.mailbox.put(task.result())
        self.mailbox.finish(error)
