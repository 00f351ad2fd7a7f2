"""The I/O thread survives what its tasks and its callers do wrong."""

import asyncio
import gc
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from lmstudio_integrations.client.transport import io_thread
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.client.transport.mailboxes import LoopMailbox, ThreadMailbox
from tests.client.fake import on_io_thread


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
    broken, healthy = LoopMailbox(io), LoopMailbox(io)
    waits = [asyncio.ensure_future(mailbox.wait()) for mailbox in (broken, healthy)]
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
    assert returned.wait(10.0)


# Collections of garbage ---------------------------------------------------------------------------------------------


async def test_garbage_is_collected_for_a_stream_that_was_not_read_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collected = list[float]()
    monkeypatch.setattr(IOThread.current(), "collect_garbage", lambda now, _loop: collected.append(now))
    mailbox = ThreadMailbox(IOThread.current())

    async def check(*times: float) -> list[float]:
        collected.clear()
        alive = list[bool]()
        await on_io_thread(lambda: alive.extend(map(mailbox.is_alive, times)))
        assert alive == [True] * len(times)
        return list(collected)

    assert await check(1, 100) == []  # a call that waits for its response
    await on_io_thread(lambda: mailbox.put("chunk"))
    assert await check(101, 105.9, 106, 107) == [106, 107]
    assert mailbox.pop_all() == ["chunk"]
    assert await check(108, 112.9, 113) == [113]
    mailbox._must_wait()
    assert await check(200, 300) == []


@pytest.mark.parametrize("has_loop", [False, True])
async def test_garbage_is_collected_in_another_thread_if_the_reader_has_no_running_loop(
    monkeypatch: pytest.MonkeyPatch, *, has_loop: bool
) -> None:
    io, threads = IOThread.current(), SimpleQueue[int]()
    monkeypatch.setattr(io, "_collect_after", 0.0)
    monkeypatch.setattr(io, "_collect_garbage", lambda _due: threads.put(threading.get_ident()))
    with closing(asyncio.new_event_loop()) as stopped_loop:
        await on_io_thread(lambda: io.collect_garbage(1.0, stopped_loop if has_loop else None))
        assert threads.get(timeout=5) not in {threading.get_ident(), io.thread.ident}


@pytest.mark.parametrize(("seconds", "next_time"), [(0.01, 120.01), (2, 312)])
async def test_collections_of_garbage_are_rare_and_short(
    monkeypatch: pytest.MonkeyPatch, seconds: float, next_time: float
) -> None:
    io, collected, now, pending = IOThread.current(), list[float](), [0.0], list[Callable[[], None]]()

    def collect() -> None:
        collected.append(now[0])
        now[0] += seconds

    busy_loop = SimpleNamespace(
        is_running=lambda: True, call_soon_threadsafe=lambda *call: pending.append(partial(*call))
    )

    async def ask(when: float, loop: Any = busy_loop) -> None:
        now[0] = when
        await on_io_thread(lambda: io.collect_garbage(when, loop))

    def run_pending() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(gc, "collect", collect)
            patch.setattr(io_thread, "time", SimpleNamespace(monotonic=lambda: now[0]))
            while pending:
                pending.pop(0)()

    monkeypatch.setattr(io, "_collect_after", 0.0)
    await ask(90.0, _BrokenLoop())
    await ask(100.0)
    await ask(109.0)
    await ask(110.0)  # the loop was blocked until now
    assert len(pending) == 2
    run_pending()
    for when in (next_time - 0.001, next_time):
        await ask(when)
        run_pending()
    assert collected == [110.0, next_time]
    gc.disable()
    try:
        await ask(1e6)
    finally:
        gc.enable()
    assert not pending
