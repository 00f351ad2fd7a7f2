"""The least that a client can do: read the socket with the `websockets` library, and the JSON of every frame."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from pydantic_core import from_json
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as aconnect
from websockets.sync.client import connect

from tests.benchmarks.meter import Cases
from tests.benchmarks.programs._parts import PROMPT, Program

AUTH = json.dumps({"authVersion": 1, "clientIdentifier": "guest:floor", "clientPasskey": "floor"})
"""The first frame of a connection."""
_LAYERS = {"layers": [{"layerName": "apiOverride", "config": {"fields": list[Any]()}}]}
_HISTORY = {"messages": [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]}


def cases(address: str) -> Cases:
    """Return what is measured."""
    runner, base = asyncio.Runner(), f"ws://{address}"
    llm, embedding = (
        connect(f"{base}/{kind}", compression=None, max_size=None, proxy=None) for kind in ("llm", "embedding")
    )
    for socket in (llm, embedding):
        socket.send(AUTH)
        socket.recv()

    async def aopen() -> ClientConnection:
        socket = await aconnect(f"{base}/llm", compression=None, max_size=None, proxy=None)
        await socket.send(AUTH)
        await socket.recv()
        return socket

    async_llm = runner.run(aopen())

    def stream(model: str) -> Iterator[object]:
        llm.send(predict(model))
        while (frame := from_json(llm.recv(decode=False)))["type"] == "channelSend":
            yield frame["message"]

    async def astream(model: str) -> AsyncIterator[object]:
        await async_llm.send(predict(model))
        while (frame := from_json(await async_llm.recv(decode=False)))["type"] == "channelSend":
            yield frame["message"]

    async def arespond(model: str) -> object:
        return [packet async for packet in astream(model)]

    def embed(texts: list[str]) -> list[list[float]]:
        for number, text in enumerate(texts):
            embedding.send(_embed(number, text))
        return [json.loads(embedding.recv())["result"]["embedding"] for _ in texts]

    floor = Program(stream, astream, lambda model: list(stream(model)), arespond, {"": embed}, runner=runner).cases(
        address
    )
    # It reads one response at a time and cannot cancel.
    return {name: case for name, case in floor.items() if name not in {"many", "cancel", "acancel"}}


def predict(model: str) -> str:
    """Return the frame that requests a response."""
    parameter = {"modelSpecifier": _specifier(model), "history": _HISTORY, "predictionConfigStack": _LAYERS}
    return json.dumps({"type": "channelCreate", "endpoint": "predict", "channelId": 1, "creationParameter": parameter})


def _embed(number: int, text: str) -> str:
    parameter = {"modelSpecifier": _specifier("vector"), "inputString": text}
    return json.dumps({"type": "rpcCall", "endpoint": "embedString", "callId": number, "parameter": parameter})


def _specifier(model: str) -> dict[str, Any]:
    return {"type": "query", "query": {"identifier": model}}
