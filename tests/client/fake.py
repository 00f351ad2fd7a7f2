"""A minimal server for misbehavior that no real server shows: a test decides frame by frame what it sends."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.emulator import Emulator

Socket = ServerConnection


async def receive(socket: Socket) -> dict[str, Any]:
    """Return the next frame."""
    frame: dict[str, Any] = json.loads(await socket.recv())
    return frame


async def send(socket: Socket, frame: object) -> None:
    """Send a frame."""
    await socket.send(json.dumps(frame))


def send_together(socket: Socket, frames: Iterable[object]) -> None:
    """Send frames in one write, so that the client receives them together."""
    for frame in frames:
        socket.protocol.send_text(json.dumps(frame).encode())
    socket.transport.write(b"".join(socket.protocol.data_to_send()))


async def authenticate(socket: Socket) -> None:
    """Accept any credentials of the client."""
    assert (await receive(socket))["authVersion"] == 1
    await send(socket, {"success": True})


async def send_result(socket: Socket, result: object) -> None:
    """Receive the next call and send its result."""
    call = await receive(socket)
    await send(socket, {"type": "rpcResult", "callId": call["callId"], "result": result})


async def respond_to_calls(socket: Socket) -> None:
    """Accept a client, and send an empty list as the result of each of its calls."""
    await authenticate(socket)
    while True:
        await send_result(socket, [])


@contextlib.asynccontextmanager
async def fake_server(
    behave: Callable[[Socket], Awaitable[None]], context: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve in the running loop; yields the address. Each socket stays open until its client closes it."""

    async def handle(socket: Socket) -> None:
        await behave(socket)
        await socket.wait_closed()

    async with serve(handle, "127.0.0.1", 0, ssl=context, close_timeout=0.5) as server:
        yield f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


def context_of(client: Any) -> Any:
    """Return how a client reaches its server."""
    return client.llm.lazy_model("any")._model.context


async def on_io_thread(function: Callable[[], object]) -> None:
    """Run a function on the I/O thread."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        function()
        loop.call_soon_threadsafe(done.set)

    IOThread.current().submit(run)
    await asyncio.wait_for(done.wait(), 600)


async def hang_up(socket: Socket) -> None:
    """Accept a client, and close its socket at its first request."""
    await authenticate(socket)
    await receive(socket)
    await socket.close()


async def until_stopped(server: Emulator) -> None:
    """Wait, without blocking this loop, until an emulator has stopped the last generation."""
    await asyncio.to_thread(server.wait_for, lambda: server.predictions[-1].stop_reason == "userStopped", 600)


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds.

    It is evaluated on the I/O thread, once per turn of its loop, because that thread makes it true.
    """
    holds = [False]
    async with asyncio.timeout(600):
        while not holds[-1]:
            await on_io_thread(lambda: holds.append(condition()))
