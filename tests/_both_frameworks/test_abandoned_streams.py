"""Async streams that nobody reads any more, although they are still referred to; both frameworks and the native client.

A web framework may keep the generator of a response in a reference cycle when its client has disconnected.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions import async_readers
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio
from tests.support.gate import AT_THE_GATE, Gate

WORDS: dict[str, Any] = {"when": {}, "then": [{"text": "one two "}, AT_THE_GATE, {"text": "three"}]}
MODEL = ModelEntry(key="chatty", rules=(WORDS,), preload=True)


def _native(host: str) -> lms.AsyncLLM:
    return lms.AsyncClient(host).llm.lazy_model("chatty")


async def _made(stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Return a stream as LlamaIndex's methods do, which are awaited."""
    return stream


STREAMS: dict[str, Callable[[str], Awaitable[AsyncIterator[Any]]]] = {
    "respond_stream": lambda host: _made(_native(host).respond_stream("Hi")),
    "respond_stream, events": lambda host: _made(_native(host).respond_stream("Hi").events()),
    "respond_stream, batches": lambda host: _made(_native(host).respond_stream("Hi").batches()),
    "complete_stream": lambda host: _made(aiter(_native(host).complete_stream("Hi"))),
    "ChatLMStudio.astream": lambda host: _made(ChatLMStudio(model="chatty", host=host).astream("Hi")),
    "LMStudioLLM.astream": lambda host: _made(LMStudioLLM(model="chatty", host=host).astream("Hi")),
    "LMStudio.astream_chat": lambda host: LMStudio(model="chatty", host=host).astream_chat([ChatMessage("Hi")]),
    "LMStudio.astream_complete": lambda host: LMStudio(model="chatty", host=host).astream_complete("Hi"),
}
each_stream = pytest.mark.parametrize("name", STREAMS)


@pytest.fixture
def server(gate: Gate) -> Iterator[Emulator]:
    """A scripted server."""
    with Emulator([MODEL], engines=gate.engines()) as running:
        yield running


@pytest.fixture
def expire(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let the time pass that other tasks have to read on; return how many streams that concerns."""
    timers: list[Callable[[], None]] = []
    call_later = asyncio.BaseEventLoop.call_later

    def record(loop: asyncio.BaseEventLoop, delay: float, callback: Any, *args: Any, **kwargs: Any) -> Any:
        if callback is not async_readers._close_if_abandoned:
            return call_later(loop, delay, callback, *args, **kwargs)
        timers.append(partial(callback, *args))
        return None

    def expire() -> int:
        for timer in timers:
            timer()
        return len(timers)

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_later", record)
    return expire


async def _read_until_text(stream: AsyncIterator[Any]) -> None:
    while "one" not in str(await anext(stream)):
        pass


@each_stream
@pytest.mark.parametrize("end", ["it returns", "it fails", "it is cancelled"])
async def test_a_stream_is_closed_when_the_task_that_read_it_has_ended(
    server: Emulator, expire: Callable[[], int], name: str, end: str
) -> None:
    stream = await STREAMS[name](server.address)
    has_read, may_end = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        await _read_until_text(stream)
        has_read.set()
        await may_end.wait()
        if end == "it fails":
            raise LookupError

    task = asyncio.create_task(read())
    await asyncio.wait_for(has_read.wait(), 5)
    assert expire() == 0
    may_end.set() if end != "it is cancelled" else task.cancel()
    await asyncio.wait([task], timeout=5)
    await asyncio.sleep(0)  # its callbacks run
    assert expire() == 1
    await asyncio.to_thread(server.wait_for, lambda: server.predictions[0].stop_reason == "userStopped")
    if end == "it fails":
        assert isinstance(task.exception(), LookupError)
    with pytest.raises(lms.LMStudioCancelledError, match="no other one read on within 1 s"):
        [each async for each in stream]


@each_stream
async def test_a_stream_that_another_task_reads_on_is_not_closed(
    server: Emulator, gate: Gate, expire: Callable[[], int], name: str
) -> None:
    stream = await STREAMS[name](server.address)
    has_read, rest = asyncio.Event(), list[str]()

    async def begin() -> None:
        await _read_until_text(stream)
        await asyncio.sleep(0)  # not only a read

    async def read_on() -> None:
        rest.append(str(await anext(stream)))
        has_read.set()
        rest.extend([str(each) async for each in stream])

    await asyncio.create_task(begin())
    reading = asyncio.create_task(read_on())
    gate.open()
    await asyncio.wait_for(has_read.wait(), 5)
    expire()
    await asyncio.wait_for(reading, 5)
    assert "three" in "".join(rest)


@each_stream
async def test_each_chunk_may_be_read_by_a_task_of_its_own(
    server: Emulator, gate: Gate, expire: Callable[[], int], name: str
) -> None:
    stream, text = await STREAMS[name](server.address), ""

    async def read() -> str:
        return str(await anext(stream, None))

    while "three" not in text:
        text += await asyncio.create_task(read())
        assert expire() == 0  # however long it takes until the next one is read
        gate.open()
