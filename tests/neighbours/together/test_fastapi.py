"""A web service streams a response as server-sent events, and ends the prediction when its client leaves."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from neighbour_servers import CHAT, Serve, served

pytestmark = pytest.mark.neighbour(
    "fastapi",
    "uvicorn",
    "httpx",
    group="applications",
    job="a web service streams responses as server-sent events, and stops when the client leaves",
)


async def test_a_service_streams(serve: Serve) -> None:
    import httpx
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"last": "story"}, "then": "once " * 10000},
        {"then": "Twenty minutes."},
        tokens_per_second=2000,
    )
    app, model = FastAPI(), ChatLMStudio(model=CHAT)

    async def events(question: str) -> AsyncIterator[str]:
        async for chunk in model.astream(question):
            if chunk.text:
                yield f"data: {chunk.text}\n\n"

    @app.get("/ask")
    async def ask(question: str) -> StreamingResponse:
        return StreamingResponse(events(question), media_type="text/event-stream")

    async with served(app) as address:
        async with httpx.AsyncClient(base_url=address) as client:
            answered = await client.get("/ask", params={"question": "How long is the trip?"})
            async with client.stream("GET", "/ask", params={"question": "Tell a story."}) as response:
                lines = response.aiter_lines()
                assert await anext(lines) == "data: once"
        await asyncio.to_thread(server.wait_for, lambda: server.predictions[1].state == "ended")
    assert answered.headers["content-type"].startswith("text/event-stream")
    assert answered.text == "data: Twenty\n\ndata:  minutes.\n\n"
    assert [each.stop_reason for each in server.predictions] == ["eosFound", "userStopped"]
    assert server.predictions[1].fragments < 10000
