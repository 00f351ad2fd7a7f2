"""The I/O thread survives what its tasks and its callers do wrong."""

import asyncio
import threading
from typing import Any

import pytest

from lmstudio_integrations.client.transport import io_thread
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.client.transport.mailboxes import LoopMailbox


def test_the_loop_is_closed_although_its_last_tasks_cannot_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise LookupError("no generators")

    io, reported = IOThread(), list[type[BaseException]]()
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))
    monkeypatch.setattr(io.loop, "shutdown_asyncgens", fail)
    io.submit(io.loop.stop)
    io.thread.join(600)
    assert reported == [LookupError]
    assert io.stopped
    assert io.loop.is_closed()


async def test_a_loop_that_cannot_be_woken_delays_no_other_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    io = IOThread.current()
    broken, healthy = LoopMailbox(io), LoopMailbox(io)
    waits = [asyncio.ensure_future(mailbox.wait()) for mailbox in (broken, healthy)]
    await asyncio.sleep(0)  # both wait now
    foreign_loop: Any = _BrokenLoop()
    monkeypatch.setattr(broken, "_loop", foreign_loop)

    def finish_together() -> None:
        io.hold_wakes()
        broken.finish(None)
        healthy.finish(None)

    io.submit(finish_together)
    assert await asyncio.wait_for(waits[1], 600) == []
    assert not waits[0].done()
    waits[0].cancel()
    await asyncio.wait(waits)


class _BrokenLoop:
    """An event loop of another library that was closed."""

    def is_running(self) -> bool:
        return True

    def call_soon_threadsafe(self, *_call: Any) -> None:
        raise AttributeError("the loop has no queue any more")


def test_what_was_submitted_is_done_when_the_caller_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_thread, "YIELD", 30.0)
    io, done = IOThread.current(), list[int]()
    for number in range(100):
        io.submit(done.append, number)
        io.yield_to()
        assert done[-1] == number


def test_a_caller_does_not_wait_for_a_busy_thread() -> None:
    io, may_go_on, done = IOThread.current(), threading.Event(), list[int]()
    io.submit(may_go_on.wait, 30.0)
    io.submit(done.append, 1)
    io.yield_to()
    assert not done
    may_go_on.set()


def test_the_thread_does_not_wait_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_thread, "YIELD", 30.0)
    io, returned = IOThread.current(), threading.Event()
    io.submit(io.yield_to)
    io.submit(returned.set)
    assert returned.wait(600)
