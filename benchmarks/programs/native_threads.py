"""The least that a client can do whose sockets live in a thread of their own, with a queue to whoever waits.

It knows no errors, timeouts, tools, cancellation or loss of the connection, and serves one caller. What the package
needs above this is what those cost; what this needs above the floor is the price of the thread.
"""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from pydantic_core import from_json
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.meter import Cases
from benchmarks.programs._parts import Program
from benchmarks.programs.native_floor import AUTH, predict

_CASES = {"stream", "astream", "one", "aone", "paced", "apaced"}


class Pump:
    """A socket on a thread of its own, and a callback that receives its frames."""

    def __init__(self, address: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._on_frame: Callable[[Any], object] = print
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._socket: ClientConnection = asyncio.run_coroutine_threadsafe(self._open(address), self._loop).result()
        self._task = asyncio.run_coroutine_threadsafe(self._read(), self._loop)

    async def _open(self, address: str) -> ClientConnection:
        socket = await connect(f"ws://{address}/llm", compression=None, max_size=None, proxy=None)
        await socket.send(AUTH)
        await socket.recv()
        return socket

    async def _read(self) -> None:
        while True:
            frame = from_json(await self._socket.recv(decode=False))
            self._on_frame(frame)

    def respond(self, model: str, on_frame: Callable[[Any], object]) -> None:
        """Request a response; `on_frame` is called with each frame on the socket's thread."""
        self._on_frame = on_frame
        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._socket.send(predict(model))))


def cases(address: str) -> Cases:
    """Return what is measured."""
    pump = Pump(address)

    def stream(model: str) -> Iterator[object]:
        frames: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        pump.respond(model, frames.put)
        while (frame := frames.get())["type"] == "channelSend":
            yield frame["message"]

    async def astream(model: str) -> AsyncIterator[object]:
        loop, frames = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any]]()
        pump.respond(model, lambda frame: loop.call_soon_threadsafe(frames.put_nowait, frame))
        while (frame := await frames.get())["type"] == "channelSend":
            yield frame["message"]

    async def arespond(model: str) -> object:
        return [packet async for packet in astream(model)]

    bare = Program(stream, astream, lambda model: list(stream(model)), arespond, {}).cases(address)
    return {name: case for name, case in bare.items() if name in _CASES}
