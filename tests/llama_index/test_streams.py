"""The stream for coroutines, as it is without core's decorator around it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import nullcontext

import pytest
from llama_index.core.base.llms.types import ChatResponse

import lmstudio_integrations as lms
from lmstudio_integrations._adapters.request_tools import ToolUse
from lmstudio_integrations.client.api.base import model_of
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.llama_index._callbacks import achunks
from lmstudio_integrations.llama_index._responses import ResponseBuilder
from tests._adapters.ways import LLAMA_INDEX, said
from tests.llama_index.scripted_server import CHAT, Server

Begin = Callable[[str], AsyncGenerator[ChatResponse, None]]


@pytest.fixture
async def begin(server: Server) -> AsyncIterator[Begin]:
    """Begins the stream of the response to a text."""
    async with lms.AsyncClient(server.address) as client:

        def begin(text: str) -> AsyncGenerator[ChatResponse]:
            prediction = model_of(client.llm.lazy_model(CHAT)).prepare_response(text, {})
            builder = ResponseBuilder(ToolUse(), prediction.result)
            return achunks(prediction, builder, ResponseBuilder.chat_response, nullcontext())

        yield begin


async def test_it_ends_and_stays_ended(begin: Begin) -> None:
    stream = begin("count")
    assert len([chunk async for chunk in stream]) > 10
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_asend_returns_the_next_chunk(begin: Begin) -> None:
    stream = begin("count")
    assert (await stream.asend(None)).delta == "0"
    await stream.aclose()


@pytest.mark.parametrize("thrown", [ValueError("enough"), ValueError])
async def test_athrow_cancels_the_prediction(server: Server, begin: Begin, thrown: ValueError) -> None:
    stream = begin("for ever")
    await anext(stream)
    with pytest.raises(ValueError):  # noqa: PT011 - that it is the thrown one is the point
        await stream.athrow(thrown)
    await asyncio.to_thread(server.wait_for, lambda: server.predictions[-1].stop_reason == "userStopped")
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_closing_it_before_the_first_chunk_sends_nothing(server: Server, begin: Begin) -> None:
    await begin("count").aclose()
    assert server.predictions == ()


@pytest.mark.parametrize("name", ["add", "chat_response"])
@pytest.mark.parametrize("way", ["stream_chat", "astream_chat"])
async def test_an_error_while_a_chunk_is_made_cancels_the_prediction(
    server: Server, monkeypatch: pytest.MonkeyPatch, way: str, name: str
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ResponseBuilder, name, fail)
    with LMStudio(model=CHAT, host=server.address) as llm:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(LLAMA_INDEX[way], llm, said("for ever"))
        await asyncio.to_thread(server.wait_for, lambda: server.predictions[-1].stop_reason == "userStopped")
