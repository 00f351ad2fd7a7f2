"""What a client needs at least: the `websockets` library reads the socket, and the stdlib's `json` every frame.

It yields the text of each token. It knows no errors, timeouts, tools or cancellation, and opens no second connection.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as aconnect
from websockets.sync.client import ClientConnection as SyncConnection
from websockets.sync.client import connect

from benchmarks.meter import Cases, expect, per_token
from benchmarks.programs._parts import CANCELLATIONS, PROMPT, Program
from benchmarks.script import response_of

AUTH = json.dumps({"authVersion": 1, "clientIdentifier": "guest:floor", "clientPasskey": "floor"})
"""The first frame of a connection."""
_LAYERS = {"layers": [{"layerName": "apiOverride", "config": {"fields": list[Any]()}}]}
_HISTORY = {"messages": [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]}


def cases(address: str) -> Cases:
    """Return what is measured."""
    runner, base = asyncio.Runner(), f"ws://{address}"
    llm, embedding, async_llm = _open(f"{base}/llm"), _open(f"{base}/embedding"), runner.run(_aopen(f"{base}/llm"))

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
            embedding.send(_embed(number, text))
        return [json.loads(embedding.recv())["result"]["embedding"] for _ in texts]

    floor = Program(stream, astream, lambda model: list(stream(model)), arespond, {"": embed}, runner=runner).cases(
        address
    )
    many = {"many": per_token(lambda: runner.run(_at_once(async_llm)), 200 * 100)}
    return {name: case for name, case in (floor | many).items() if name not in CANCELLATIONS}


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


async def _at_once(socket: ClientConnection) -> None:
    """Read 200 responses of 100 tokens, each on a channel of the same connection."""
    model, packets, running = "burst-100", dict.fromkeys(range(200), 0), 200
    for channel in packets:
        await socket.send(predict(model, channel))
    while running:
        frame = json.loads(await socket.recv())
        if frame["type"] == "channelSend":
            packets[frame["channelId"]] += 1
        else:
            running -= 1
    expect(min(packets.values()), len(response_of(model).tokens))


def predict(model: str, channel: int = 1) -> str:
    """Return the frame that requests a response on a channel."""
    parameter = {"modelSpecifier": _specifier(model), "history": _HISTORY, "predictionConfigStack": _LAYERS}
    create = {"type": "channelCreate", "endpoint": "predict", "channelId": channel, "creationParameter": parameter}
    return json.dumps(create)


def _embed(number: int, text: str) -> str:
    parameter = {"modelSpecifier": _specifier("vector"), "inputString": text}
    return json.dumps({"type": "rpcCall", "endpoint": "embedString", "callId": number, "parameter": parameter})


def _specifier(model: str) -> dict[str, Any]:
    return {"type": "query", "query": {"identifier": model}}
