"""A web service streams a response as server-sent events, and ends the prediction when its client leaves."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "fastapi",
    "uvicorn",
    "httpx",
    group="applications",
    job="a web service streams responses as server-sent events, and stops when the client leaves",
)


async def test_a_service_streams(serve: Serve) -> None:
    import httpx
    import uvicorn
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

    started = asyncio.Event()

    class Web(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            started.set()

    web = Web(uvicorn.Config(app, port=0, log_level="warning"))
    serving = asyncio.create_task(web.serve())
    async with asyncio.timeout(60):
        await started.wait()
        address = f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient(base_url=address) as client:
            answered = await client.get("/ask", params={"question": "How long is the trip?"})
            async with client.stream("GET", "/ask", params={"question": "Tell a story."}) as response:
                lines = response.aiter_lines()
                assert await anext(lines) == "data: once"
        await asyncio.to_thread(server.wait_for, lambda: server.predictions[1].state == "ended")
        web.should_exit = True
        await serving
    assert answered.headers["content-type"].startswith("text/event-stream")
    assert answered.text == "data: Twenty\n\ndata:  minutes.\n\n"
    assert [each.stop_reason for each in server.predictions] == ["eosFound", "userStopped"]
    assert server.predictions[1].fragments < 10000
