"""The I/O thread survives what its tasks and its callers do wrong; and what no signal handler may interrupt."""

import asyncio
import threading
from typing import Any, NoReturn

import pytest

from lmstudio_integrations import Client
from lmstudio_integrations.client.concurrency import io_thread
from lmstudio_integrations.client.concurrency.io_thread import IOThread, on_io_thread, uninterrupted
from lmstudio_integrations.client.concurrency.mailboxes import LoopMailbox, ThreadMailbox
from lmstudio_integrations.client.concurrency.threads import Threads
from lmstudio_integrations.errors import LMStudioCancelledError, LMStudioRuntimeError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_loop_is_closed_although_its_last_tasks_cannot_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise LookupError("no generators")

    io = IOThread()
    monkeypatch.setattr(io.loop, "shutdown_asyncgens", fail)
    io.end()
    io.thread.join(600)
    assert io.stopped
    assert io.loop.is_closed()


class _OtherLoop(asyncio.SelectorEventLoop):
    """An event loop of another library that was closed."""

    def call_soon_threadsafe(self, *_: Any, **__: Any) -> Any:  # type: ignore[override]  # however it is called
        raise AttributeError("the loop has no queue any more")


async def _begin_to_wait(io: IOThread) -> tuple[LoopMailbox, "asyncio.Task[list[Any]]"]:
    mailbox = LoopMailbox(io)
    task = asyncio.ensure_future(mailbox.wait())
    await asyncio.sleep(0)
    return mailbox, task


async def test_a_loop_that_cannot_be_woken_delays_no_other_caller() -> None:
    io, other = IOThread.current(), _OtherLoop()
    broken, never = await asyncio.to_thread(other.run_until_complete, _begin_to_wait(io))
    healthy, waiting = await _begin_to_wait(io)

    def finish_together() -> None:
        io.hold_wakes()
        broken.finish(None)
        healthy.finish(None)
        io.release_wakes()

    io.submit(finish_together)
    assert await waiting == []
    assert not never.done()
    never.cancel()
    await asyncio.to_thread(other.run_until_complete, asyncio.wait([never]))
    other.close()


def test_the_first_end_of_a_wait_stays() -> None:
    io, has_ended = IOThread.current(), threading.Event()
    mailbox = ThreadMailbox(io)

    def end_twice() -> None:
        mailbox.finish(LMStudioCancelledError("the stream was closed"))
        mailbox.finish(None)  # what was waited for ends meanwhile
        has_ended.set()

    io.submit(end_twice)
    assert has_ended.wait(600)
    with pytest.raises(LMStudioCancelledError, match="was closed"):
        mailbox.wait()


def test_what_was_submitted_is_done_when_the_caller_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_thread, "YIELD", 600.0)
    io, done = IOThread.current(), list[int]()
    for number in range(100):
        io.submit(done.append, number)
        io.yield_to()
        assert done[-1] == number
    returned = threading.Event()
    io.submit(io.yield_to)  # it does not wait for itself
    io.submit(returned.set)
    assert returned.wait(600)


def test_a_caller_does_not_wait_for_a_busy_thread() -> None:
    io, may_go_on, done = IOThread.current(), threading.Event(), list[int]()
    io.submit(may_go_on.wait, 600.0)
    io.submit(done.append, 1)
    io.yield_to()
    assert not done
    may_go_on.set()


def test_an_uninterrupted_function_runs_in_another_thread_and_its_result_or_error_comes_back() -> None:
    assert uninterrupted(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        uninterrupted(lambda: 1 // 0)


def test_it_runs_at_once_where_no_signal_handler_runs() -> None:
    threads: list[int] = []
    thread = threading.Thread(target=lambda: threads.append(uninterrupted(threading.get_ident)))
    thread.start()
    thread.join(600)
    assert threads == [thread.ident]


def test_it_runs_although_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(io_thread, "start_new_thread", fail)
    assert uninterrupted(threading.get_ident) == threading.get_ident()


def test_a_fresh_thread_ends_with_its_block_and_then_the_earlier_one_is_back() -> None:
    earlier, ran = IOThread.current(), threading.Event()
    earlier.shared["x"] = 1
    try:
        with IOThread.fresh():
            own = IOThread.current()
            assert own is not earlier
            assert own.shared == {}
            earlier.submit(on_io_thread(ran.set))  # its clients may close meanwhile
            assert ran.wait(30)
        assert own.stopped
        assert not own.thread.is_alive()
        assert IOThread.current() is earlier
    finally:
        del earlier.shared["x"]


@pytest.mark.parametrize("problem", [OSError(24, "Too many open files"), RuntimeError("can't start new thread")])
def test_a_first_call_for_which_nothing_is_left_says_what_is_missing(
    problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise problem

    with IOThread.fresh():
        monkeypatch.setattr(Threads, "start_loop", fail)
        with pytest.raises(LMStudioRuntimeError, match=f"{problem.args[-1]}; close files .* ulimit"):
            Client("127.0.0.1:9").list_loaded_models()
