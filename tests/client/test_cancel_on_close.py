"""`cancel_on_close`, on the native client: what is stopped when a stream is closed, what is not, and how it is read.

`tests/_adapters/test_stopping.py` has the agents of the frameworks.
"""

import asyncio
import contextvars
import dis
import gc
import itertools
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, thread
from functools import cache, partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import anyio
import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client import cancel_on_close
from lmstudio_integrations.client.concurrency.cancel_scope import CancelScope, add_to_scope
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.support.gate import AT_THE_GATE, Gate
from tests.support.signals import ctrl_c

pytestmark = pytest.mark.leaf

HELD: dict[str, Any] = {"when": {}, "then": [{"text": "one two "}, AT_THE_GATE, {"text": "three"}]}
MODELS = [ModelEntry(key="chatty", rules=(HELD,), preload=True), ModelEntry(key="other", preload=True)]


@pytest.fixture
def server(gate: Gate) -> Iterator[Emulator]:
    """A scripted server; one of its models is held up."""
    with Emulator(MODELS, engines=gate.engines()) as running:
        yield running


@pytest.fixture
def client(server: Emulator) -> Iterator[lms.Client]:
    with lms.Client(server.address) as client:
        yield client


def in_threads(client: lms.Client, results: list[object]) -> Iterator[str]:
    """Generate in a thread, as frameworks do, which is waited for at the end."""
    begun = threading.Event()

    def generate() -> None:
        try:
            for _ in client.llm.model("chatty").respond_stream("Hi"):
                begun.set()
        except lms.LMStudioError as error:
            results.append(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=[generate])
    thread.start()
    try:
        begun.wait()
        yield "begun"
        thread.join()
        yield "ended"
    finally:
        thread.join()


def ended(server: Emulator) -> str | None:
    server.wait_for(lambda: bool(server.predictions) and server.predictions[-1].state == "ended")
    return server.predictions[-1].stop_reason


def check_stopped(server: Emulator, results: list[object]) -> None:
    """Check that the server has stopped, and that the thread of the call has the error of its stream."""
    assert ended(server) == "userStopped"
    server.wait_for(lambda: bool(results))
    assert isinstance(results[0], lms.LMStudioCancelledError)
    assert "together with the stream" in str(results[0])


def collect(is_there: "weakref.ref[Any]", by: Callable[[], object] = gc.collect) -> None:
    """Collect until something has gone."""
    while is_there():  # one call does nothing while another thread collects
        by()


def in_a_cycle(stream: Any) -> "weakref.ref[Any]":
    """Let a cycle refer to a stream."""
    cycle: dict[str, Any] = {"stream": stream}
    cycle["itself"] = cycle
    return weakref.ref(stream)


def _break(stream: Any) -> None:
    for _ in stream:
        break


def _close(stream: Any) -> None:
    next(stream)
    stream.close()


def _with(stream: Any) -> None:
    with stream:
        next(stream)


def _collect(stream: Any) -> None:
    next(stream)
    is_there = in_a_cycle(stream)
    del stream
    collect(is_there)


def _fail(stream: Any) -> None:
    def read() -> None:
        for _ in stream:
            raise KeyError

    with pytest.raises(KeyError):
        read()


def _interrupt(stream: Any) -> None:
    next(stream)
    reads = threading.Event()

    def read() -> None:
        reads.set()
        next(stream)

    with pytest.raises(KeyboardInterrupt), ctrl_c(reads.wait):
        read()


def test_a_stream_that_is_collected_stops_its_models_before_what_it_reads_is_closed(
    client: lms.Client, server: Emulator
) -> None:
    results: list[object] = []
    gc.disable()  # so that it meets the generator first, which was made first, and which waits for its thread
    try:
        _collect(lms.cancel_on_close(in_threads(client, results)))
    finally:
        gc.enable()
    check_stopped(server, results)


@pytest.mark.parametrize("leave", [_break, _close, _with, _collect, _fail, _interrupt])
def test_whoever_stops_reading_a_stream_stops_what_its_threads_generate(
    client: lms.Client, server: Emulator, leave: Callable[[Any], None]
) -> None:
    results: list[object] = []
    leave(lms.cancel_on_close(in_threads(client, results)))
    check_stopped(server, results)


def test_a_thread_that_reads_on_after_another_one_has_closed_a_stream_gets_an_error() -> None:
    reading = lms.cancel_on_close(iter(range(9)))
    next(reading)
    closer = threading.Thread(target=reading.close)
    closer.start()
    closer.join()
    with pytest.raises(lms.LMStudioCancelledError, match="together with the stream"):
        next(reading)
    assert list(reading) == []


def test_only_what_the_stream_calls_is_stopped(client: lms.Client, server: Emulator, gate: Gate) -> None:
    own = client.llm.model("chatty").respond_stream("mine")
    next(own)
    stream = lms.cancel_on_close(in_threads(client, []))
    next(stream)
    stream.close()
    server.wait_for(lambda: server.predictions[1].stop_reason == "userStopped")
    gate.open()
    assert own.wait_for_result().content == "one two three"
    assert client.llm.model("other").respond("Hi").content


def test_what_is_called_later_in_a_stream_that_was_closed_fails(client: lms.Client) -> None:
    calls: list[Callable[[], object]] = [
        lambda: client.llm.model("other").respond("Hi"),
        lambda: client.llm.lazy_model("other").respond("Hi"),
        client.embedding.list_loaded,
    ]

    def stream() -> Iterator[str]:
        try:
            yield "begun"
        finally:
            for call in calls:
                with pytest.raises(lms.LMStudioCancelledError):
                    call()
            raise KeyError("it is closed")

    reading = lms.cancel_on_close(stream)
    assert next(reading) == "begun"
    with pytest.raises(KeyError, match="it is closed"):
        reading.close()


def test_a_stream_that_was_read_to_its_end_cancels_nothing(client: lms.Client, server: Emulator, gate: Gate) -> None:
    background: list[lms.PredictionStream] = []

    def stream() -> Iterator[str]:
        background.append(client.llm.model("chatty").respond_stream("Hi"))
        background[0].start()
        yield "only"

    assert list(lms.cancel_on_close(stream())) == ["only"]
    gc.collect()
    gate.open()
    assert background[0].wait_for_result().stats.stop_reason == "eosFound"
    assert ended(server) == "eosFound"


def test_an_error_of_the_stream_is_raised_and_nothing_follows() -> None:
    def stream() -> Iterator[int]:
        yield 1
        raise TimeoutError("of the stream")

    reading = lms.cancel_on_close(stream())
    assert next(reading) == 1
    with pytest.raises(TimeoutError, match="of the stream"):
        next(reading)
    assert list(reading) == []


def test_a_stream_is_read_one_item_at_a_time_in_the_context_of_who_made_it() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    read: list[str] = []

    def stream() -> Iterator[int]:
        for number in range(3):
            read.append(f"{number} {variable.get()}")
            variable.set("of the stream")
            yield number

    variable.set("of the maker")
    reading = lms.cancel_on_close(stream())
    variable.set("changed")
    assert (next(reading), read) == (0, ["0 of the maker"])
    assert (next(reading), read) == (1, ["0 of the maker", "1 of the stream"])
    assert variable.get() == "changed"
    reading.close()


def test_two_streams_of_which_one_reads_the_other_are_both_stopped(client: lms.Client, server: Emulator) -> None:
    results: list[object] = []

    def outer() -> Iterator[str]:
        yield from lms.cancel_on_close(in_threads(client, results))

    _close(lms.cancel_on_close(outer))
    assert ended(server) == "userStopped"


# A stream, and one in another -----------------------------------------------------------------------------------------


def _alone(stream: Callable[[], Iterator[str]]) -> Any:
    outer = lms.cancel_on_close(stream)
    next(outer)
    return outer


def _wrapped_twice(stream: Callable[[], Iterator[str]]) -> Any:
    outer = lms.cancel_on_close(lms.cancel_on_close(stream))
    next(outer)
    return outer


def _wrapped_in_the_outer_one(stream: Callable[[], Iterator[str]]) -> Any:
    outer = lms.cancel_on_close(lambda: lms.cancel_on_close(stream))
    next(outer)
    return outer


def _read_before_the_outer_one_was_made(stream: Callable[[], Iterator[str]]) -> Any:
    inner = lms.cancel_on_close(stream)
    next(inner)
    return lms.cancel_on_close(inner)


NESTED = pytest.mark.parametrize(
    "nest", [_alone, _wrapped_twice, _wrapped_in_the_outer_one, _read_before_the_outer_one_was_made]
)


@NESTED
def test_any_thread_may_close_a_stream_that_another_one_reads(
    client: lms.Client, server: Emulator, nest: Callable[[Any], Any]
) -> None:
    reads = threading.Event()

    def stream() -> Iterator[str]:
        for item in in_threads(client, []):
            yield item
            reads.set()

    outer = nest(stream)

    def close() -> None:
        reads.wait()
        outer.close()

    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(lms.LMStudioCancelledError, match="together with the stream"):
        next(outer)
    closer.join()
    assert ended(server) == "userStopped"
    assert list(outer) == []


@NESTED
def test_a_tool_may_close_the_stream_that_calls_it(nest: Callable[[Any], Any]) -> None:
    def stream() -> Iterator[int]:
        yield 1
        outer.close()
        yield 2

    outer = nest(stream)
    with pytest.raises(lms.LMStudioCancelledError, match="together with the stream"):
        next(outer)
    outer.close()
    assert list(outer) == []


# What refers to its own stream ----------------------------------------------------------------------------------------


class Chat:
    """Keeps the stream of its own method."""

    def __init__(self, items: Callable[[], Iterator[object]]) -> None:
        self.stream = lms.cancel_on_close(self.events(items))

    def events(self, items: Callable[[], Iterator[object]]) -> Iterator["Chat"]:
        for _ in items():
            yield self


def _collect_on_the_io_thread() -> None:
    """Collect where nothing can be received meanwhile."""
    collected = threading.Event()

    def collect() -> None:
        gc.collect()
        collected.set()

    IOThread.current().submit(collect)
    collected.wait()


@pytest.mark.parametrize("by", [gc.collect, _collect_on_the_io_thread])
def test_an_object_that_keeps_the_stream_of_its_method_is_collected_and_its_models_stop(
    client: lms.Client, server: Emulator, by: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[object] = []
    others = set(threading.enumerate())
    gc.disable()  # so that it is collected where the test says
    try:
        chat = Chat(lambda: in_threads(client, results))
        next(chat.stream)
        is_there = weakref.ref(chat)
        del chat
        collect(is_there, by)
    finally:
        gc.enable()
    check_stopped(server, results)
    for own in set(threading.enumerate()) - others:
        own.join()


def test_what_has_no_finalizer_is_closed_when_its_stream_is_collected() -> None:
    class Items:
        def __init__(self) -> None:
            self.closed = closed

        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            return 1

        def close(self) -> None:
            self.closed.set()
            raise KeyError("nobody reads it")

    closed = threading.Event()
    chat: Any = Items()
    chat.stream = lms.cancel_on_close(chat)
    del chat
    while not closed.is_set():
        gc.collect()


# What outlives a stream -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_in_context", [True, False])
def test_a_pool_of_the_program_runs_in_the_stream_only_with_a_copy_of_its_context(
    client: lms.Client, server: Emulator, gate: Gate, *, is_in_context: bool
) -> None:
    def work() -> str:
        return client.llm.model("chatty").respond("Hi").content

    futures: list[Future[str]] = []
    with ThreadPoolExecutor(1) as pool:

        def stream() -> Iterator[int]:
            futures.append(pool.submit(contextvars.copy_context().run, work) if is_in_context else pool.submit(work))
            gate.reached.wait()
            yield 1

        _with(lms.cancel_on_close(stream))
        if is_in_context:
            assert ended(server) == "userStopped"
            assert isinstance(futures[0].exception(), lms.LMStudioCancelledError)
        gate.open()
    assert is_in_context or futures[0].result() == "one two three"


def test_a_thread_that_outlives_a_closed_stream_is_rejected_with_the_name_of_the_stream(client: lms.Client) -> None:
    closed = threading.Event()
    errors: list[str] = []

    def work() -> None:
        closed.wait()
        for _ in range(2):
            with pytest.raises(lms.LMStudioCancelledError) as caught:
                client.llm.model("other").respond("Hi")
            errors.append(str(caught.value))

    def my_stream() -> Iterator[threading.Thread]:
        worker = threading.Thread(target=contextvars.copy_context().run, args=[work])
        worker.start()
        yield worker

    with lms.cancel_on_close(my_stream()) as stream:
        line, worker = sys._getframe().f_lineno - 1, next(stream)
    closed.set()
    worker.join()
    name = f"{test_a_thread_that_outlives_a_closed_stream_is_rejected_with_the_name_of_the_stream.__name__}.<locals>"
    text = (
        f"the call was cancelled together with the stream that it belongs to, cancel_on_close({name}.my_stream) "
        f"at test_cancel_on_close.py:{line}; start what outlives it before it, or in an empty contextvars.Context()"
    )
    assert errors == [text, text]


# Ctrl-C ---------------------------------------------------------------------------------------------------------------


class Call:
    """A call that is made in a scope."""

    def __init__(self) -> None:
        self.aborted = threading.Event()

    def abort(self, error: lms.LMStudioCancelledError) -> None:
        self.aborted.set()


def _reads_in_a_block(items: Iterator[int]) -> None:
    with lms.cancel_on_close(items) as stream:
        for item in stream:
            if item == 2:
                break


def _reads_in_a_loop(items: Iterator[int]) -> None:
    for item in lms.cancel_on_close(items):
        if item == 2:
            break


@cache
def _instants(code: CodeType) -> set[int]:
    """Return the instructions before which Python looks for signals: the first one, and each after a call or jump."""
    instructions = list(dis.get_instructions(code))
    before = {each.offset for each in instructions if each.opname == "RESUME"}
    for each, following in itertools.pairwise(instructions):
        if each.opname.startswith(("CALL", "JUMP_BACKWARD", "RESUME")):
            before.add(following.offset)
    return before


# Finalizers, and the callbacks of weak sets and dictionaries: Python prints what is raised in one, and goes on.
IGNORES_ERRORS = {"__del__", "_remove", "remove"}


def _interrupted(at: int, function: Callable[[], None]) -> bool:
    """Call a function, and interrupt it at such an instant; return whether there are so many."""
    count, previous = 0, sys.gettrace()

    def trace_call(frame: FrameType, event: str, _: object) -> Any:
        outer: FrameType | None = frame
        while outer is not None and outer.f_code.co_name not in IGNORES_ERRORS:
            outer = outer.f_back
        if outer is not None or frame.f_code.co_filename == __file__:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return trace_instruction

    def trace_instruction(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        count += event == "opcode" and frame.f_lasti in _instants(frame.f_code)
        if count == at:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace_instruction

    gc.disable()  # Python prints as well what is raised in a callback of the collector, such as that of Hypothesis
    sys.settrace(trace_call)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(previous)
        gc.enable()
    return False


def test_a_scope_keeps_nothing_of_a_call_that_has_ended() -> None:
    scope, call = CancelScope("scope"), Call()
    scope.add(call)
    del call
    gc.collect()
    assert not scope._calls


def test_a_stream_that_is_read_before_the_one_around_it_brings_its_calls() -> None:
    inner, outer, call = CancelScope("inner"), CancelScope("outer"), Call()
    inner.add(call)
    outer.context().run(inner.join)
    outer.cancel()
    assert call.aborted.is_set()


def test_a_call_that_joins_a_scope_that_was_cancelled_meanwhile_ends() -> None:
    scope, call = CancelScope("scope"), Call()
    scope.cancel()
    scope.add(call)
    assert call.aborted.is_set()


@pytest.mark.parametrize("read", [_reads_in_a_block, _reads_in_a_loop])
def test_an_interruption_at_any_instant_stays_what_it_is_and_stops_the_stream(
    read: Callable[[Iterator[int]], None],
) -> None:
    instant = 0
    while True:
        instant += 1
        call, has_begun, has_ended = Call(), threading.Event(), threading.Event()

        def items(call: Call, has_begun: threading.Event, has_ended: threading.Event) -> Iterator[int]:
            add_to_scope(call)
            has_begun.set()
            try:
                yield from (1, 2, 3)
            finally:
                has_ended.set()

        if not _interrupted(instant, partial(read, items(call, has_begun, has_ended))):
            break
        if has_begun.is_set():
            assert call.aborted.wait(30), instant
            assert has_ended.wait(30), instant
    assert instant > 50


# Coroutines -----------------------------------------------------------------------------------------------------------


async def in_tasks(server: Emulator) -> AsyncIterator[str]:
    """Generate in a task, as frameworks do, and let nothing cancel it."""
    begun = asyncio.Event()
    async with lms.AsyncClient(server.address) as client:

        async def generate() -> None:
            async for _ in (await client.llm.model("chatty")).respond_stream("Hi"):
                begun.set()

        task = asyncio.create_task(generate())
        await begun.wait()
        yield "begun"
        try:
            await asyncio.wait([task])
        finally:
            while not task.done():
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([task])
            assert isinstance(task.exception(), lms.LMStudioCancelledError)


async def _break_async(stream: Any) -> None:
    async for _ in stream:
        break


async def _aclose(stream: Any) -> None:
    await anext(stream)
    await stream.aclose()


async def _with_async(stream: Any) -> None:
    async with stream:
        await anext(stream)


async def _cancel_task(stream: Any) -> None:
    await anext(stream)
    task = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def _cancel_scope(stream: Any) -> None:
    await anext(stream)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anext(stream)


async def _collect_async(stream: Any) -> None:
    await anext(stream)
    is_there = in_a_cycle(stream)
    del stream
    collect(is_there)


async def _close_while_another_task_reads(stream: Any) -> None:
    await anext(stream)
    task = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await stream.aclose()
    with pytest.raises(lms.LMStudioCancelledError, match="together with the stream"):
        await task


async def _close_one_that_reads_it(stream: Any) -> None:
    await _close_while_another_task_reads(lms.cancel_on_close(stream))


LEAVE_ASYNC: list[Callable[[Any], Any]] = [
    _break_async,
    _aclose,
    _with_async,
    _cancel_task,
    _cancel_scope,
    _collect_async,
    _close_while_another_task_reads,
    _close_one_that_reads_it,
]


@pytest.mark.parametrize("leave", LEAVE_ASYNC)
async def test_whoever_stops_reading_an_async_stream_stops_what_its_tasks_generate(
    server: Emulator, leave: Callable[[Any], Any]
) -> None:
    await leave(lms.cancel_on_close(in_tasks(server)))
    assert await asyncio.to_thread(ended, server) == "userStopped"


async def test_an_async_stream_may_enter_what_belongs_to_a_task() -> None:
    async def stream() -> AsyncIterator[int]:
        with anyio.CancelScope():  # must be left in the task that entered it
            yield 1
            yield 2

    assert [number async for number in lms.cancel_on_close(stream())] == [1, 2]
    reading = lms.cancel_on_close(stream)
    assert await anext(reading) == 1
    await reading.aclose()
    assert [number async for number in reading] == []


async def test_an_error_while_an_async_stream_is_closed_is_raised_by_aclose() -> None:
    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise KeyError("it is closed")

    reading = lms.cancel_on_close(stream())
    await anext(reading)
    with pytest.raises(KeyError, match="it is closed"):
        await reading.aclose()


async def test_an_error_of_an_async_stream_is_raised_and_nothing_follows() -> None:
    async def stream() -> AsyncIterator[int]:
        yield 1
        raise TimeoutError("of the stream")

    reading = lms.cancel_on_close(stream())
    assert await anext(reading) == 1
    with pytest.raises(TimeoutError, match="of the stream"):
        await anext(reading)
    assert [number async for number in reading] == []


async def test_a_load_that_others_wait_for_is_theirs_if_its_caller_is_cancelled() -> None:
    models = [ModelEntry(key="slow", load_seconds=0.2)]
    async with Emulator(models) as server, lms.AsyncClient(server.address) as client:

        async def load() -> AsyncIterator[str]:
            await client.llm.model("slow", load_policy="explicit")
            yield "loaded"

        stream = lms.cancel_on_close(load())
        leader = asyncio.ensure_future(anext(stream))
        await asyncio.to_thread(server.wait_for, lambda: bool(server.loads))
        other = asyncio.ensure_future(client.llm.model("slow", load_policy="explicit"))
        await asyncio.sleep(0)
        await stream.aclose()
        assert (await (await other).respond("Hi")).content
        await asyncio.wait([leader])


async def test_an_object_that_keeps_the_async_stream_of_its_method_is_collected_and_its_models_stop(
    server: Emulator,
) -> None:
    class AsyncChat:
        def __init__(self, client: lms.AsyncClient) -> None:
            self.client = client
            self.stream = lms.cancel_on_close(self.events())

        async def events(self) -> AsyncIterator["AsyncChat"]:
            model = await self.client.llm.model("chatty")
            async for _ in model.respond_stream("Hi"):
                yield self

    unhandled: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    async with lms.AsyncClient(server.address) as client:
        chat = AsyncChat(client)
        await anext(chat.stream)
        is_there = weakref.ref(chat)
        del chat
        await asyncio.sleep(0)  # the loop holds what it resumed the task with
        collect(is_there)
        assert await asyncio.to_thread(ended, server) == "userStopped"
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
    assert unhandled == []


class Worker:
    """A task that asks what others put into its queue; made when it is needed first."""

    def __init__(self, client: lms.AsyncClient, context: contextvars.Context | None = None) -> None:
        self.client = client
        self.context = context
        self.questions: asyncio.Queue[tuple[str, asyncio.Future[str]]] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None

    async def ask(self, key: str) -> str:
        if self.task is None:
            self.task = asyncio.create_task(self._work(), context=self.context)
        response: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        await self.questions.put((key, response))
        return await response

    async def _work(self) -> None:
        while True:
            key, response = await self.questions.get()
            try:
                model = await self.client.llm.model(key)
                response.set_result((await model.respond("Hi")).content)
            except lms.LMStudioError as error:
                response.set_exception(error)


async def test_a_task_that_outlives_a_closed_stream_is_released_from_it(server: Emulator) -> None:
    async with lms.AsyncClient(server.address) as client:
        worker = Worker(client)

        async def stream() -> AsyncIterator[str]:
            yield await worker.ask("other")

        async with lms.cancel_on_close(stream()) as responses:
            expected = await anext(responses)
        assert await worker.ask("other") == expected
        async with lms.cancel_on_close(stream()) as responses:  # it is in no stream now
            assert await anext(responses) == expected
        assert worker.task is not None
        worker.task.cancel()


async def test_a_task_that_outlives_a_closed_stream_of_a_thread_is_released_from_it(server: Emulator) -> None:
    loop = asyncio.get_running_loop()
    async with lms.AsyncClient(server.address) as client:
        worker = Worker(client)

        def items() -> Iterator[str]:
            yield asyncio.run_coroutine_threadsafe(worker.ask("other"), loop).result()

        def read() -> str:
            with lms.cancel_on_close(items()) as stream:
                return next(stream)

        expected = await asyncio.to_thread(read)
        assert await worker.ask("other") == expected
        assert worker.task is not None
        worker.task.cancel()


async def test_a_task_in_an_empty_context_belongs_to_no_stream(server: Emulator, gate: Gate) -> None:
    async with lms.AsyncClient(server.address) as client:
        worker = Worker(client, contextvars.Context())
        asked: list[asyncio.Task[str]] = []

        async def stream() -> AsyncIterator[int]:
            asked.append(asyncio.create_task(worker.ask("chatty")))
            await asyncio.to_thread(gate.reached.wait)
            yield 1

        async with lms.cancel_on_close(stream()) as items:
            await anext(items)
        gate.open()
        assert await asked[0] == "one two three"
        assert worker.task is not None
        worker.task.cancel()


async def test_many_calls_that_are_stopped_together_let_the_io_thread_send_once(
    server: Emulator, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    yields: list[None] = []
    async with lms.AsyncClient(server.address) as client:
        model = await client.llm.model("chatty")

        async def stream() -> AsyncIterator[int]:
            calls = [asyncio.ensure_future(model.respond("Hi")) for _ in range(9)]
            await asyncio.to_thread(server.wait_for, lambda: len(server.predictions) == len(calls))
            yield 1
            await asyncio.wait(calls)

        items = lms.cancel_on_close(stream())
        await anext(items)
        monkeypatch.setattr(IOThread, "yield_to", lambda _: yields.append(None))
        items._stop()
        monkeypatch.undo()
        await items.aclose()
    assert yields == [None]


def _in_another_loop(coroutine: Any) -> None:
    """Run it in an event loop of another thread."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, coroutine).result()


async def test_a_task_of_another_event_loop_may_close_a_stream_and_waits_for_it(server: Emulator) -> None:
    closed: list[str] = []

    async def stream() -> AsyncIterator[str]:
        try:
            async for item in in_tasks(server):
                yield item
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    reading = lms.cancel_on_close(stream())
    await anext(reading)
    await asyncio.to_thread(_in_another_loop, reading.aclose())
    assert closed == ["closed"]
    assert await asyncio.to_thread(ended, server) == "userStopped"


async def test_a_run_that_is_closed_in_another_event_loop_is_cancelled_in_its_own() -> None:
    run = Run()
    events = lms.cancel_on_close(run)
    assert await anext(events) == 1
    await asyncio.to_thread(_in_another_loop, events.aclose())
    assert run.loops == [asyncio.get_running_loop()]


def test_nobody_waits_for_a_stream_whose_event_loop_does_not_run() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        yield 2

    loop = asyncio.new_event_loop()
    reading = lms.cancel_on_close(items())
    assert loop.run_until_complete(anext(reading)) == 1
    asyncio.run(reading.aclose())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


# What is no stream ----------------------------------------------------------------------------------------------------


def test_who_reads_a_stream_in_the_moment_in_which_it_is_closed_gets_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = lms.cancel_on_close(iter([1, 2]))
    assert next(reading) == 1

    class ClosedBefore:
        def put(self, job: object) -> None:
            reading._jobs = jobs
            reading.close()
            jobs.put(job)

    jobs: Any = reading._jobs
    monkeypatch.setattr(reading, "_jobs", ClosedBefore())
    with pytest.raises(lms.LMStudioCancelledError, match="together with the stream"):
        next(reading)


def test_a_stream_may_be_collected_where_locks_are_held_that_a_thread_needs() -> None:
    closed, left = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        try:
            yield 1
        finally:
            closed.set()

    def collect() -> None:
        reading = lms.cancel_on_close(items())
        next(reading)
        with thread._global_shutdown_lock:  # as where the collector runs while a task is submitted
            del reading
        left.set()

    threading.Thread(target=collect, daemon=True).start()
    assert left.wait(30)
    assert closed.wait(30)


_FORKED = """
import os
import lmstudio_integrations as lms

def items():
    yield 1
    yield 2

reading = lms.cancel_on_close(items())
next(reading)
pid = os.fork()
if pid == 0:
    try:
        next(reading)
    except lms.LMStudioConnectionLostError:
        reading.close()
        os._exit(list(reading) != [])
    os._exit(2)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), list(reading))
"""


def test_two_threads_that_read_a_stream_to_its_end_lose_no_item_and_are_not_told_of_a_close() -> None:
    for _ in range(100):
        stream, items = lms.cancel_on_close(iter(range(20))), list[int]()
        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(lambda: items.extend(stream)) for _ in range(2)]  # noqa: B023 - at once
        assert [reader.result() for reader in readers] == [None, None]
        assert sorted(items) == [*range(20)]


def test_a_stream_that_is_open_when_the_process_exits_is_closed_while_its_threads_run(
    client: lms.Client, server: Emulator, gate: Gate
) -> None:
    results: list[object] = []
    stream = lms.cancel_on_close(in_threads(client, results))
    assert next(stream) == "begun"
    cancel_on_close._end_threads()
    assert ended(server) == "userStopped"
    assert [type(each) for each in results] == [lms.LMStudioCancelledError]
    with pytest.raises(StopIteration):
        next(stream)
    assert not cancel_on_close._threads


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_neither_reads_the_stream_of_its_parent_nor_waits_for_it() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    ended = subprocess.run([sys.executable, "-c", _FORKED], env=env, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "0 [2]"


def test_a_stream_that_cannot_be_begun_fails_with_its_own_error_alone() -> None:
    class UsedUp:
        def __iter__(self) -> Iterator[int]:
            raise KeyError

    with pytest.raises(KeyError):
        lms.cancel_on_close(UsedUp())


def test_an_async_stream_is_read_in_one_event_loop() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        yield 2

    reading = lms.cancel_on_close(items())

    async def read() -> int:
        return await anext(reading)

    assert asyncio.run(read()) == 1
    with pytest.raises(lms.LMStudioRuntimeError, match="another event loop"):
        asyncio.run(read())


async def test_a_task_of_an_async_stream_may_close_it() -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.create_task(reading.aclose())

    async with asyncio.timeout(30):
        reading = lms.cancel_on_close(items())
        assert await anext(reading) == 1
        await reading.aclose()
    assert [item async for item in reading] == []


async def test_each_task_that_reads_an_async_stream_learns_of_its_end() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1

    async with asyncio.timeout(30):
        reading = lms.cancel_on_close(items())
        first, *others = await asyncio.gather(*(anext(reading) for _ in range(3)), return_exceptions=True)
        assert (first, [type(other) for other in others]) == (1, [StopAsyncIteration] * 2)
        assert [item async for item in reading] == []


async def test_each_task_that_reads_an_async_stream_learns_that_it_was_closed() -> None:
    reads = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        reads.set()
        await asyncio.Event().wait()
        yield 1

    async with asyncio.timeout(30):
        reading = lms.cancel_on_close(items())
        tasks = [asyncio.ensure_future(anext(reading)) for _ in range(2)]
        await reads.wait()
        await reading.aclose()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [lms.LMStudioCancelledError] * 2


async def test_a_task_that_reads_on_after_another_one_has_closed_an_async_stream_gets_an_error() -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(9):
            yield number

    reading = lms.cancel_on_close(items())
    await anext(reading)
    await asyncio.create_task(reading.aclose())
    with pytest.raises(lms.LMStudioCancelledError, match="together with the stream"):
        await anext(reading)
    assert [item async for item in reading] == []


class Run:
    """A run of a workflow, or a response of a chat engine, that has begun."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.loops: list[asyncio.AbstractEventLoop] = []

    async def stream_events(self) -> AsyncIterator[int]:
        yield 1
        yield 2

    async def cancel_run(self) -> None:
        self.cancelled.set()
        self.loops.append(asyncio.get_running_loop())

    @property
    def response_gen(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("given", [lambda run: run, lambda run: lambda: run])
async def test_a_run_that_is_closed_before_its_end_is_cancelled(given: Callable[[Run], Any], *, reads: bool) -> None:
    run = Run()
    async with lms.cancel_on_close(given(run)) as events:
        if reads:
            assert await anext(events) == 1
    assert run.cancelled.is_set()


async def test_a_run_that_nothing_refers_to_is_cancelled() -> None:
    run = Run()
    async for _ in lms.cancel_on_close(run):
        break
    gc.collect()
    await run.cancelled.wait()


async def test_a_run_that_was_read_to_its_end_is_not_cancelled() -> None:
    run = Run()
    assert [event async for event in lms.cancel_on_close(run)] == [1, 2]
    assert not run.cancelled.is_set()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("text", "must be an iterator; got 'text'"),
        (5, "must be an iterator; got 5"),
        (lambda: None, "must be an iterator; got None"),
        (Run().response_gen, r"begun before; pass cancel_on_close\(lambda: agent.run\(question\)\)"),
        (Run().stream_events(), r"begun before; pass cancel_on_close\(lambda: agent.run\(question\)\)"),
    ],
)
def test_what_is_no_stream_is_rejected(given: Any, text: str) -> None:
    with pytest.raises(lms.LMStudioValueError, match=text):
        lms.cancel_on_close(given)


def test_a_coroutine_must_be_awaited_first() -> None:
    async def stream() -> AsyncIterator[int]:
        return Run().stream_events()

    coroutine: Any = stream()
    with pytest.raises(lms.LMStudioValueError, match="await it first"):
        lms.cancel_on_close(coroutine)
    coroutine.close()


# The page -------------------------------------------------------------------------------------------------------------

ROWS: dict[str, Callable[..., object]] = {
    "a stream in the stream": test_any_thread_may_close_a_stream_that_another_one_reads,
    "a sync tool": test_whoever_stops_reading_a_stream_stops_what_its_threads_generate,
    "a call in a pool of your own": test_a_pool_of_the_program_runs_in_the_stream_only_with_a_copy_of_its_context,
    "a thread that goes on": test_a_thread_that_outlives_a_closed_stream_is_rejected_with_the_name_of_the_stream,
    "a task that goes on": test_a_task_that_outlives_a_closed_stream_is_released_from_it,
    "an object that keeps": test_an_object_that_keeps_the_stream_of_its_method_is_collected_and_its_models_stop,
    "a task of another event loop": test_a_task_of_another_event_loop_may_close_a_stream_and_waits_for_it,
    "Ctrl-C at any instant": test_an_interruption_at_any_instant_stays_what_it_is_and_stops_the_stream,
}
"""The tests of what the page says, by how each row of its table begins."""


def test_each_row_of_the_page_has_a_test() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guides" / "stopping.md").read_text(encoding="utf-8")
    table = page.split("| what | when the stream is closed |\n| --- | --- |\n")[1].split("\n\n")[0]
    rows = table.splitlines()
    assert len(rows) == len(ROWS)
    assert all(row.startswith(f"| {beginning}") for row, beginning in zip(rows, ROWS, strict=True))
