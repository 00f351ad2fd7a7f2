"""Whatever happens in a thread that reads a stream, the next calls are right: its own, and those of other threads."""

import asyncio
import faulthandler
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests.support.signals import ctrl_c
from tests.support.threads import together

RULES: list[dict[str, Any]] = [
    {"when": {"last": "^quick"}, "then": [{"text": "It is done."}]},
    {"when": {"last": "^stall"}, "then": [{"text": "It "}, {"wait": 3600}]},
    {"then": [{"text": "on and on " * 100_000}]},
]
MODEL: dict[str, Any] = {"key": "m", "rules": RULES, "slots": 16, "preload": True}
OWN = f"{Path(lms.__file__).parent}{os.sep}"
DEPTHS = 60
"""From so many frames below the limit of recursion on, a call is tried."""


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    """A server with a model that answers, stalls or goes on for ever."""
    with Emulator([MODEL]) as running:
        yield running


@pytest.fixture
def client(server: Emulator) -> Iterator[lms.Client]:
    """A client of the server."""
    with lms.Client(server.address) as made:
        yield made


def answer(client: lms.Client) -> str:
    return client.llm.lazy_model("m").respond("quick").content


def in_thread(work: Callable[[], object]) -> None:
    """Run work in a thread of its own, which has no error."""
    together(1, lambda _: work())


def fragments(client: lms.Client, text: str, **timeouts: Any) -> Iterator[Any]:
    return iter(client.llm.lazy_model("m").with_timeouts(**timeouts).respond_stream(text))


def native(server: Emulator, text: str) -> Iterator[Any]:
    return fragments(lms.Client(server.address), text, idle_timeout=1)


def langchain(server: Emulator, text: str) -> Iterator[Any]:
    return ChatLMStudio(model="m", host=server.address, timeouts={"idle_timeout": 1}, max_retries=0).stream(text)


def llama_index(server: Emulator, text: str) -> Iterator[Any]:
    llm = LMStudio(model="m", host=server.address, timeouts={"idle_timeout": 1}, max_retries=0)
    return iter(llm.stream_complete(text))


@pytest.mark.slow
@pytest.mark.parametrize("begin", [native, langchain, llama_index])
def test_a_stream_that_stalls_ends_by_its_timeout_while_another_one_of_the_thread_flows(
    server: Emulator, client: lms.Client, begin: Callable[[Emulator, str], Iterator[Any]]
) -> None:
    flowing, stalled = fragments(client, "for ever"), begin(server, "stall")
    next(flowing)
    with pytest.raises(lms.LMStudioTimeoutError, match="idle_timeout"):
        list(stalled)
    next(flowing)


class StopError(BaseException):
    """Raised into a thread from outside, as Ctrl-C and the time limits of job queues are."""


class _RaiseAtLine:
    """A trace function that raises an exception at one of the package's lines that a thread passes."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.has_raised = False

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(OWN):
            return None
        if event == "line" and not self.has_raised:
            self._left -= 1
            if self._left < 0:
                self.has_raised = True
                raise StopError
        return self


def _lines_passed(work: Callable[[], object], at: int) -> bool:
    """Run work in a thread into which an exception is raised at a line; return whether it was."""
    trace = _RaiseAtLine(at)

    def run() -> None:
        sys.settrace(trace)
        try:
            work()
        except StopError:
            pass
        finally:
            sys.settrace(None)

    in_thread(run)
    return trace.has_raised


@pytest.mark.slow
@pytest.mark.skipif(sys.gettrace() is not None, reason="the trace function of coverage or of a debugger is needed")
def test_an_exception_that_is_raised_into_a_reading_thread_at_any_line_harms_no_other_call(
    server: Emulator, client: lms.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignored = list[BaseException | None]()  # what is raised into a finalizer, Python ignores
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: ignored.append(unraisable.exc_value))
    answer(client)
    at, begun = 0, len(server.predictions)
    while _lines_passed(lambda: list(client.llm.lazy_model("m").respond_stream("quick")), at):
        assert answer(client) == "It is done.", f"after an exception at line {at}"
        at += 1
    assert at > 100
    assert not [each for each in ignored if not isinstance(each, StopError)]
    gc.collect()
    server.wait_for(lambda: all(each.stop_reason is not None for each in server.predictions[begun:]))


def _at_depth(frames: int, work: Callable[[], object]) -> object:
    """Call a function so many frames below the limit of recursion."""
    depth, frame = 0, sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back  # type: ignore[assignment]

    def descend(left: int) -> object:
        return descend(left - 1) if left > 0 else work()

    return descend(sys.getrecursionlimit() - depth - frames - 1)


@pytest.mark.slow
def test_a_stream_that_is_read_at_the_limit_of_recursion_harms_no_other_call(
    server: Emulator, client: lms.Client
) -> None:
    failed = 0
    for frames in range(DEPTHS):
        stream = fragments(client, "for ever")
        next(stream)

        def read(stream: Iterator[Any] = stream, frames: int = frames) -> None:
            nonlocal failed
            try:
                for _ in range(5):
                    _at_depth(frames, lambda: next(stream))
            except RecursionError:
                failed += 1

        in_thread(read)
        assert answer(client) == "It is done.", f"after reading {frames} frames below the limit"
        stream.close()  # type: ignore[attr-defined]
    assert 0 < failed < DEPTHS


@pytest.mark.slow
def test_threads_that_wait_at_the_limit_of_recursion_run_nothing_of_other_callers(
    server: Emulator, client: lms.Client
) -> None:
    waiting = list[threading.Thread]()
    for frames in range(10, DEPTHS, 5):
        stream = fragments(client, "stall")
        next(stream)

        def wait(stream: Iterator[Any] = stream, frames: int = frames) -> None:
            with suppress(RecursionError, lms.LMStudioError):
                _at_depth(frames, lambda: next(stream))

        waiting.append(threading.Thread(target=wait, daemon=True))
        waiting[-1].start()
    assert together(4, lambda _: [answer(client) for _ in range(20)]) == [["It is done."] * 20] * 4

    async def respond() -> list[str]:
        async with lms.AsyncClient(server.address) as other:
            return [(await other.llm.lazy_model("m").respond("quick")).content for _ in range(20)]

    assert asyncio.run(respond()) == ["It is done."] * 20
    client.close()
    for thread in waiting:
        thread.join(600)
        assert not thread.is_alive()


def test_a_call_after_a_lost_connection_connects_again_although_a_reader_pauses(
    server: Emulator, client: lms.Client
) -> None:
    stream = fragments(client, "for ever")
    for _ in range(10):
        next(stream)
    running = server._started

    def reset() -> None:
        for each in running.server.connections:
            each._socket.transport.abort()

    running.loop.call_soon_threadsafe(reset)
    server.wait_for(lambda: not server.connections)
    noticed = threading.Event()
    IOThread.current().submit(lambda: IOThread.current().submit(noticed.set))
    assert noticed.wait(600)
    assert answer(client) == "It is done."
    with pytest.raises(lms.LMStudioConnectionLostError):
        list(stream)


@pytest.mark.skipif(not hasattr(faulthandler, "register"), reason="Windows has no such handlers")
def test_a_handler_of_ctrl_c_below_python_is_still_there_after_a_stream(client: lms.Client, tmp_path: Path) -> None:
    written = tmp_path / "traceback"
    with written.open("w") as file:
        faulthandler.register(signal.SIGINT, file)
        try:
            assert "".join(each.content for each in fragments(client, "quick")) == "It is done."
            signal.raise_signal(signal.SIGINT)
        finally:
            faulthandler.unregister(signal.SIGINT)
    assert "test_a_handler_of_ctrl_c" in written.read_text()


def test_ctrl_c_while_a_stream_is_read_stops_it_and_stays_alive(server: Emulator, client: lms.Client) -> None:
    def read(has_begun: threading.Event) -> None:
        stream = fragments(client, "for ever")
        next(stream)
        has_begun.set()
        list(stream)

    for _ in range(2):
        has_begun = threading.Event()
        with pytest.raises(KeyboardInterrupt), ctrl_c(has_begun.wait):
            read(has_begun)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        server.wait_for(lambda: server.predictions[-1].stop_reason == "userStopped")
    assert answer(client) == "It is done."
