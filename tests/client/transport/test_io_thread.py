"""The I/O thread survives what its tasks and its callers do wrong."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.client.transport.waiters import LoopWaiter


def test_the_loop_is_closed_although_its_last_tasks_cannot_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise LookupError("no generators")

    io, reported = IOThread(), list[type[BaseException]]()
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))
    monkeypatch.setattr(io.loop, "shutdown_asyncgens", fail)
    io.submit(io.loop.stop)
    io.thread.join(5)
    assert reported == [LookupError]
    assert io.stopped
    assert io.loop.is_closed()


async def test_a_loop_that_cannot_be_woken_delays_no_other_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    io = IOThread.current()
    broken, healthy = LoopWaiter(io), LoopWaiter(io)
    waits = [asyncio.ensure_future(waiter.wait()) for waiter in (broken, healthy)]
    await asyncio.sleep(0)  # both wait now
    foreign_loop: Any = _BrokenLoop()
    monkeypatch.setattr(broken, "_loop", foreign_loop)

    def finish_together() -> None:
        io.hold_wakes()
        broken.finish(None)
        healthy.finish(None)
        io.release_wakes()

    io.submit(finish_together)
    assert await asyncio.wait_for(waits[1], 5) == []
    assert not waits[0].done()
    waits[0].cancel()
    await asyncio.wait(waits)


class _BrokenLoop:
    """An event loop of another library that was closed."""

    def call_soon_threadsafe(self, _callback: Callable[[], None]) -> None:
        raise AttributeError("the loop has no queue any more")
