"""Streams in a reference cycle stop when Python's garbage collector finds them; both frameworks and the native client.

A web framework may keep the generator of a response in a cycle when its client has disconnected.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from llama_index.core.base.llms.types import ChatMessage

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
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


Make = Callable[[str], Awaitable[AsyncIterator[Any]]]
STREAMS: dict[str, Make] = {
    "respond_stream": lambda host: _made(_native(host).respond_stream("Hi")),
    "ChatLMStudio.astream": lambda host: _made(_chat(host).astream("Hi")),
    "ChatLMStudio.astream, a callback": lambda host: _made(
        _chat(host).astream("Hi", {"callbacks": [AwaitingHandler()]})
    ),
    "LMStudio.astream_chat": lambda host: LMStudio(model="chatty", host=host).astream_chat(HI),
    "threads: ChatLMStudio.stream": lambda host: _made(InThreads(_chat(host).stream("Hi"))),
}
OF_LANGCHAIN = "ChatLMStudio.astream"


@pytest.fixture
def server(gate: Gate) -> Iterator[Emulator]:
    """A scripted server."""
    with Emulator([MODEL], engines=gate.engines()) as running:
        yield running


async def _read_until_text(stream: AsyncIterator[Any]) -> None:
    while "two" not in str(await anext(stream)):
        pass


@pytest.mark.parametrize(
    ("name", "end"),
    [*((name, "it returns") for name in STREAMS), (OF_LANGCHAIN, "it is cancelled")],
)
async def test_a_stream_is_closed_when_the_task_that_read_it_has_ended_and_only_a_cycle_refers_to_it(
    server: Emulator, name: str, end: str
) -> None:
    has_read, may_end = asyncio.Event(), asyncio.Event()

    async def read(stream: AsyncIterator[Any]) -> None:
        response: dict[str, Any] = {"stream": stream}
        response["itself"] = response
        await _read_until_text(stream)
        has_read.set()
        await may_end.wait()

    stream = await STREAMS[name](server.address)
    task = asyncio.create_task(read(stream))
    del stream
    await has_read.wait()
    gc.collect(1)
    assert server.predictions[0].state == "running"
    may_end.set() if end != "it is cancelled" else task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() == (end == "it is cancelled")
    del task
    gc.collect()
    await asyncio.to_thread(server.wait_for, lambda: server.predictions[0].stop_reason == "userStopped")
