"""The stream for coroutines, without core's decorator around it."""

import asyncio
import gc
from collections.abc import AsyncGenerator

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole

from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.llama_index._chunks import Answer, Options
from lmstudio_integrations.llama_index._streams import AsyncChunks
from tests.llama_index.server import Server


def streaming(llm: LMStudio, text: str) -> AsyncChunks[ChatResponse]:
    job = llm._chat_job([ChatMessage(role=MessageRole.USER, content=text)], {})
    return AsyncChunks(llm._open(job, job.call.async_model()), Answer(Options()), Answer.chat_chunk, lambda _: None)


def stopped(server: Server) -> bool:
    return bool(server.predictions) and server.predictions[-1].stop_reason == "userStopped"


def test_core_takes_it_for_an_async_generator(llm: LMStudio) -> None:
    assert isinstance(streaming(llm, "count"), AsyncGenerator)


async def test_it_ends_and_stays_ended(llm: LMStudio) -> None:
    stream = streaming(llm, "count")
    assert len([chunk async for chunk in stream]) > 10
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_sending_into_it_gets_the_next_chunk(llm: LMStudio) -> None:
    stream = streaming(llm, "count")
    assert (await stream.asend(None)).delta == "0"
    await stream.aclose()


@pytest.mark.parametrize("thrown", [ValueError("enough"), ValueError])
async def test_throwing_into_it_stops_the_server(server: Server, llm: LMStudio, thrown: ValueError) -> None:
    stream = streaming(llm, "for ever")
    await anext(stream)
    with pytest.raises(ValueError):  # noqa: PT011 - that it is the thrown one is the point
        await stream.athrow(thrown)
    await asyncio.to_thread(server.wait_for, lambda: stopped(server))
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_closing_it_before_it_began_asks_for_nothing(server: Server, llm: LMStudio) -> None:
    await streaming(llm, "count").aclose()
    assert server.predictions == ()


async def test_dropping_it_stops_the_server(server: Server, llm: LMStudio) -> None:
    stream = streaming(llm, "for ever")
    await anext(stream)
    del stream
    gc.collect()
    await asyncio.to_thread(server.wait_for, lambda: stopped(server))


async def test_a_task_that_is_cancelled_while_it_waits_stops_the_server(server: Server, llm: LMStudio) -> None:
    async def read() -> None:
        async for _ in streaming(llm, "for ever"):
            pass

    task = asyncio.create_task(read())
    await asyncio.to_thread(server.wait_for, lambda: bool(server.predictions))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(server.wait_for, lambda: stopped(server))
