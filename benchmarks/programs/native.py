"""Native clients. The floor is the `websockets` library, which reads the socket, and the stdlib's `json`.

The floor yields the text of each token. It knows no errors, timeouts, tools or cancellation, and opens no second
connection.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as aconnect
from websockets.sync.client import ClientConnection as SyncConnection
from websockets.sync.client import connect

import lmstudio_integrations as lms
from benchmarks.programs import FLOOR, MODELS, OURS, PROMPT, RUNNER, Program

AUTH = json.dumps({"authVersion": 1, "clientIdentifier": "guest:floor", "clientPasskey": "floor"})
"""The first frame of a connection."""

_LAYERS = {"layers": [{"layerName": "apiOverride", "config": {"fields": list[Any]()}}]}


def predict(model: str, channel: int = 1, text: str = PROMPT) -> str:
    """Return the frame that requests a response on a channel."""
    history = {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]}
    parameter = {"modelSpecifier": _specifier(model), "history": history, "predictionConfigStack": _LAYERS}
    create = {"type": "channelCreate", "endpoint": "predict", "channelId": channel, "creationParameter": parameter}
    return json.dumps(create)


def _specifier(model: str) -> dict[str, Any]:
    return {"type": "query", "query": {"identifier": model}}


def _floor(address: str) -> Program:
    base = f"ws://{address}"
    llm, embedding, async_llm = _open(f"{base}/llm"), _open(f"{base}/embedding"), RUNNER.run(_aopen(f"{base}/llm"))

    def stream(model: str) -> Iterator[object]:
        llm.send(predict(model))
        while (frame := json.loads(llm.recv()))["type"] == "channelSend":
            if frame["message"]["type"] == "fragment":
                yield frame["message"]["fragment"]["content"]

    async def astream(model: str) -> AsyncIterator[object]:
        await async_llm.send(predict(model))
        while (frame := json.loads(await async_llm.recv()))["type"] == "channelSend":
            if frame["message"]["type"] == "fragment":
                yield frame["message"]["fragment"]["content"]

    async def arespond(model: str) -> object:
        return [token async for token in astream(model)]

    def embed(texts: list[str]) -> list[list[float]]:
        for number, text in enumerate(texts):
            parameter = {"modelSpecifier": _specifier("vector"), "inputString": text}
            call = {"type": "rpcCall", "endpoint": "embedString", "callId": number, "parameter": parameter}
            embedding.send(json.dumps(call))
        return [json.loads(embedding.recv())["result"]["embedding"] for _ in texts]

    return Program(stream, astream, lambda model: list(stream(model)), arespond, embed)


def _open(url: str) -> SyncConnection:
    socket = connect(url, compression=None, max_size=None, proxy=None)
    socket.send(AUTH)
    socket.recv()
    return socket


async def _aopen(url: str) -> ClientConnection:
    socket = await aconnect(url, compression=None, max_size=None, proxy=None)
    await socket.send(AUTH)
    await socket.recv()
    return socket


def ours(address: str) -> Program:
    """Return the program of the native client of this package."""
    client, async_client = lms.Client(address), lms.AsyncClient(address)
    models = {name: client.llm.model(name) for name in MODELS}

    async def get() -> dict[str, lms.AsyncLLM]:
        return {name: await async_client.llm.model(name) for name in MODELS}

    async_models = RUNNER.run(get())
    return Program(
        stream=lambda model: models[model].respond_stream(PROMPT),
        astream=lambda model: async_models[model].respond_stream(PROMPT),
        respond=lambda model: models[model].respond(PROMPT),
        arespond=lambda model: async_models[model].respond(PROMPT),
        embed=client.embedding.model("vector").embed,
    )


def _official(address: str) -> Program:
    import lmstudio

    client, async_client = lmstudio.Client(address), lmstudio.AsyncClient(address)
    models = {name: client.llm.model(name) for name in MODELS}

    async def get() -> dict[str, Any]:
        await async_client.__aenter__()
        return {name: await async_client.llm.model(name) for name in MODELS}

    async_models = RUNNER.run(get())

    async def astream(model: str) -> AsyncIterator[object]:
        async with await async_models[model].respond_stream(PROMPT) as stream:
            async for fragment in stream:
                yield fragment

    return Program(
        stream=lambda model: models[model].respond_stream(PROMPT),
        astream=astream,
        respond=lambda model: models[model].respond(PROMPT),
        arespond=lambda model: async_models[model].respond(PROMPT),
        embed=client.embedding.model("vector").embed,
    )


PROGRAMS: Mapping[str, Callable[[str], Program]] = {FLOOR: _floor, OURS: ours, "official SDK": _official}
"""What makes the program of each role, for the address of the scripted server."""
