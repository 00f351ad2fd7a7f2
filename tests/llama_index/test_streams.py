"""The stream for coroutines, without core's decorator around it."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole

from lmstudio_integrations.llama_index import LMStudio
from tests.llama_index.scripted_server import Server


async def streaming(llm: LMStudio, text: str) -> AsyncGenerator[ChatResponse]:
    stream = await llm.astream_chat([ChatMessage(role=MessageRole.USER, content=text)])
    assert isinstance(stream, AsyncGenerator)
    return stream


def stopped(server: Server) -> bool:
    return bool(server.predictions) and server.predictions[-1].stop_reason == "userStopped"


async def test_it_ends_and_stays_ended(llm: LMStudio) -> None:
    stream = await streaming(llm, "count")
    assert len([chunk async for chunk in stream]) > 10
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_asend_returns_the_next_chunk(llm: LMStudio) -> None:
    stream = await streaming(llm, "count")
    assert (await stream.asend(None)).delta == "0"
    await stream.aclose()


@pytest.mark.parametrize("thrown", [ValueError("enough"), ValueError])
async def test_athrow_cancels_the_prediction(server: Server, llm: LMStudio, thrown: ValueError) -> None:
    stream = await streaming(llm, "for ever")
    await anext(stream)
    with pytest.raises(ValueError):  # noqa: PT011 - that it is the thrown one is the point
        await stream.athrow(thrown)
    await asyncio.to_thread(server.wait_for, lambda: stopped(server))
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_closing_it_before_the_first_chunk_sends_nothing(server: Server, llm: LMStudio) -> None:
    await (await streaming(llm, "count")).aclose()
    assert server.predictions == ()
