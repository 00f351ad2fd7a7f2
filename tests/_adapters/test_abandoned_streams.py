"""Streams that nobody reads: one that can still be read lives on, others stop; both frameworks and the native client.

A web framework may keep the generator of a response in a reference cycle when its client has disconnected.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from llama_index.core.base.llms.types import ChatMessage

import lmstudio_integrations as lms
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio
from tests.support.collections_of_garbage import Collections, eager_collections
from tests.support.gate import AT_THE_GATE, Gate

WORDS: dict[str, Any] = {"when": {}, "then": [{"text": '["one two '}, AT_THE_GATE, {"text": 'three"]'}]}
MODEL = ModelEntry(key="chatty", rules=(WORDS,), preload=True)
HI = [ChatMessage("Hi")]


class AwaitingHandler(AsyncCallbackHandler):
    """Awaits something at each token, so the task that reads one chunk does not only read."""

    async def on_llm_new_token(self, *_: Any, **__: Any) -> None:
        await asyncio.sleep(0)


def _native(host: str) -> lms.AsyncLLM:
    return lms.AsyncClient(host).llm.lazy_model("chatty")


def _chat(host: str) -> ChatLMStudio:
    return ChatLMStudio(model="chatty", host=host)


def _structured(host: str) -> AsyncIterator[Any]:
    schema = {"title": "Words", "type": "array", "items": {"type": "string"}}
    return _chat(host).with_structured_output(schema).astream("Hi")


async def _made(stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Return a stream as LlamaIndex's methods do, which are awaited."""
    return stream


class InThreads(AsyncIterator[Any]):
    """A stream for threads, read as web frameworks read it: each chunk in any thread."""

    def __init__(self, stream: Iterator[Any]) -> None:
        self._stream = stream

    async def __anext__(self) -> Any:
        end = object()
        chunk = await asyncio.to_thread(next, self._stream, end)
        if chunk is end:
            raise StopAsyncIteration
        return chunk


class RecordsItsThread:
    """Records in which thread it is finalized."""

    def __init__(self, threads: list[threading.Thread]) -> None:
        self._threads = threads

    def __del__(self) -> None:
        self._threads.append(threading.current_thread())


Make = Callable[[str], Awaitable[AsyncIterator[Any]]]
STREAMS: dict[str, Make] = {
    "respond_stream": lambda host: _made(_native(host).respond_stream("Hi")),
    "respond_stream, events": lambda host: _made(_native(host).respond_stream("Hi").events()),
    "respond_stream, batches": lambda host: _made(_native(host).respond_stream("Hi").batches()),
    "ChatLMStudio.astream": lambda host: _made(_chat(host).astream("Hi")),
    "ChatLMStudio.astream, a callback": lambda host: _made(
        _chat(host).astream("Hi", {"callbacks": [AwaitingHandler()]})
    ),
    "with_structured_output": lambda host: _made(_structured(host)),
    "LMStudioLLM.astream": lambda host: _made(LMStudioLLM(model="chatty", host=host).astream("Hi")),
    "LMStudio.astream_chat": lambda host: LMStudio(model="chatty", host=host).astream_chat(HI),
    "threads: respond_stream": lambda host: _made(
        InThreads(iter(lms.Client(host).llm.lazy_model("chatty").respond_stream("Hi")))
    ),
    "threads: ChatLMStudio.stream": lambda host: _made(InThreads(_chat(host).stream("Hi"))),
    "threads: LMStudio.stream_chat": lambda host: _made(InThreads(LMStudio(model="chatty", host=host).stream_chat(HI))),
}
OF_LANGCHAIN = "ChatLMStudio.astream"


@pytest.fixture
def server(gate: Gate) -> Iterator[Emulator]:
    """A scripted server."""
    with Emulator([MODEL], engines=gate.engines()) as running:
        yield running


@pytest.fixture
def collections() -> Iterator[Collections]:
    """The client collects garbage whenever it finds that a stream is not read."""
    with eager_collections() as collections:
        yield collections


async def _read_until_text(stream: AsyncIterator[Any]) -> None:
    while "two" not in str(await anext(stream)):
        pass


@pytest.mark.parametrize(
    ("name", "end"),
    [*((name, "it returns") for name in STREAMS), (OF_LANGCHAIN, "it fails"), (OF_LANGCHAIN, "it is cancelled")],
)
async def test_a_stream_is_closed_when_the_task_that_read_it_has_ended_and_only_a_cycle_refers_to_it(
    server: Emulator, collections: Collections, name: str, end: str
) -> None:
    has_read, may_end, threads = asyncio.Event(), asyncio.Event(), list[threading.Thread]()

    async def read(stream: AsyncIterator[Any]) -> None:
        response: dict[str, Any] = {"stream": stream, "finalizer": RecordsItsThread(threads)}
        response["itself"] = response
        await _read_until_text(stream)
        has_read.set()
        await may_end.wait()
        if end == "it fails":
            raise LookupError

    stream = await STREAMS[name](server.address)
    runs_in_loop = not isinstance(stream, InThreads)
    task = asyncio.create_task(read(stream))
    del stream
    await asyncio.wait_for(has_read.wait(), 5)
    await asyncio.to_thread(collections.wait_for_two)
    assert server.predictions[0].state == "running"
    may_end.set() if end != "it is cancelled" else task.cancel()
    results = await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 5)
    assert isinstance(results[0], LookupError) == (end == "it fails")
    del task, results  # an error refers to the frame that has read
    await asyncio.to_thread(server.wait_for, lambda: server.predictions[0].stop_reason == "userStopped")
    assert IOThread.current().thread not in threads
    assert not runs_in_loop or threads == [threading.current_thread()], (
        "async generators must not end beside their loop"
    )


@pytest.mark.parametrize(("name", "task_per_chunk"), [*((name, True) for name in STREAMS), (OF_LANGCHAIN, False)])
async def test_a_stream_that_can_still_be_read_lives_on_however_long_nobody_reads_it(
    server: Emulator, gate: Gate, collections: Collections, name: str, *, task_per_chunk: bool
) -> None:
    stream, read, end = await STREAMS[name](server.address), list[Any](), object()

    async def read_chunk() -> None:
        read.append(await anext(stream, end))

    async def read_on() -> None:
        await (asyncio.create_task(read_chunk()) if task_per_chunk else read_chunk())

    while "two" not in str(read):
        await read_on()
    await asyncio.to_thread(collections.wait_for_two)
    gate.open()
    while read[-1] is not end:
        await read_on()
    assert "three" in str(read)
