"""The stream for coroutines, without core's decorator around it."""

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import nullcontext

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole

from lmstudio_integrations._adapters.tool_settings import ToolUse
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.llama_index._responses import ResponseBuilder
from lmstudio_integrations.llama_index._streams import AsyncChunks
from tests.llama_index.scripted_server import Server


def streaming(llm: LMStudio, text: str) -> AsyncChunks[ChatResponse]:
    request = llm._chat_request([ChatMessage(role=MessageRole.USER, content=text)], {})
    stream = llm._aopen(request)
    return AsyncChunks(stream, ResponseBuilder(ToolUse(), stream.result), ResponseBuilder.chat_chunk, nullcontext())


def stopped(server: Server) -> bool:
    return bool(server.predictions) and server.predictions[-1].stop_reason == "userStopped"


def test_core_recognizes_it_as_an_async_generator(llm: LMStudio) -> None:
    assert isinstance(streaming(llm, "count"), AsyncGenerator)


async def test_it_ends_and_stays_ended(llm: LMStudio) -> None:
    stream = streaming(llm, "count")
    assert len([chunk async for chunk in stream]) > 10
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_asend_returns_the_next_chunk(llm: LMStudio) -> None:
    stream = streaming(llm, "count")
    assert (await stream.asend(None)).delta == "0"
    await stream.aclose()


@pytest.mark.parametrize("thrown", [ValueError("enough"), ValueError])
async def test_athrow_cancels_the_prediction(server: Server, llm: LMStudio, thrown: ValueError) -> None:
    stream = streaming(llm, "for ever")
    await anext(stream)
    with pytest.raises(ValueError):  # noqa: PT011 - that it is the thrown one is the point
        await stream.athrow(thrown)
    await asyncio.to_thread(server.wait_for, lambda: stopped(server))
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_closing_it_before_the_first_chunk_sends_nothing(server: Server, llm: LMStudio) -> None:
    await streaming(llm, "count").aclose()
    assert server.predictions == ()


@pytest.mark.slow
async def test_collecting_it_cancels_the_prediction(server: Server, llm: LMStudio) -> None:
    stream = streaming(llm, "for ever")
    await anext(stream)
    del stream
    gc.collect()
    await asyncio.to_thread(server.wait_for, lambda: stopped(server))


async def test_cancelling_a_waiting_task_cancels_the_prediction(server: Server, llm: LMStudio) -> None:
    async def read() -> None:
        async for _ in streaming(llm, "for ever"):
            pass

    task = asyncio.create_task(read())
    await asyncio.to_thread(server.wait_for, lambda: bool(server.predictions))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(server.wait_for, lambda: stopped(server))
