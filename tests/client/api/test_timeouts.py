"""Which requests a timeout of a call covers, and what is cancelled on the server when it expires."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.embeddings import Embedder
from lmstudio_integrations.client.models.state import Instance, ModelState
from lmstudio_integrations.client.transport.operation import MAX_IN_FLIGHT, Operation
from lmstudio_integrations.protocol.endpoints import rpc
from tests.client.both import make_client
from tests.client.fake import Socket, authenticate, context_of, fake_server, receive, send, send_result
from tests.client.prediction_frames import END, fragment, loaded_handle, packet
from tests.support.virtual_time import in_virtual_time

__all__ = ["make_client"]

UNLOADED: dict[str, Any] = {
    "type": "channelError",
    "channelId": 1,
    "error": {"title": "No model", "displayData": {"code": "generic.noModelMatchingQuery"}},
}


@pytest.mark.parametrize(
    ("name", "frames", "call"),
    [
        (
            "load_timeout",
            [packet({"type": "loadProgress", "progress": 0.5})],
            lambda client: client.llm.lazy_model("chatty").respond("Hi"),
        ),
        ("idle_timeout", [fragment("a")], lambda client: loaded_handle(client).respond("Hi")),
        # The model is loaded again, which takes too long.
        (
            "total_timeout",
            [UNLOADED],
            lambda client: loaded_handle(client).with_timeouts(total_timeout=20).respond("Hi"),
        ),
    ],
)
@in_virtual_time
async def test_an_expired_timeout_cancels_on_the_server(
    name: str, frames: list[dict[str, Any]], call: Callable[[Any], Any], make_client: Callable[..., Any]
) -> None:
    received: list[dict[str, Any]] = []

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        for frame in frames:
            await send(socket, frame)
        while True:
            received.append(await receive(socket))

    names = ("load_timeout", "first_token_timeout", "idle_timeout", "total_timeout")
    limits: dict[str, Any] = {**dict.fromkeys(names), name: 20}
    async with fake_server(behave) as address, make_client(address, **limits) as client:
        with pytest.raises(lms.LMStudioTimeoutError, match=f"{name} expired") as caught:
            await call(client)
        assert caught.value.timeout_name == name
        await asyncio.sleep(1)
        assert received[-1]["message"] == {"type": "cancel"}


async def test_the_total_timeout_covers_all_requests_of_a_call() -> None:
    async with lms.AsyncClient("127.0.0.1:1", total_timeout=9) as client:
        whole = Operation(context_of(client), {"idle_timeout": 3.0})
        await asyncio.sleep(0)
        calls = [whole.start("llm", rpc("llm", "listLoaded"), None, label="Model list") for _ in range(2)]
        first, second = (call.exchange for (call,) in calls)
        assert first.started == second.started < first.since < second.since
        assert (first.timeouts["total_timeout"], first.timeouts["idle_timeout"]) == (9, 3.0)
        assert whole.context.timeouts["idle_timeout"] == 60.0


@in_virtual_time
async def test_the_total_timeout_covers_the_lists_of_all_kinds_of_models(make_client: Callable[..., Any]) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        while True:
            call = await receive(socket)
            await asyncio.sleep(6)
            await send(socket, {"type": "rpcResult", "callId": call["callId"], "result": []})

    async with fake_server(behave) as address, make_client(address, total_timeout=9) as client:
        assert await client.llm.list_loaded() == []
        with pytest.raises(lms.LMStudioTimeoutError, match="total_timeout expired"):
            await client.list_loaded_models()


async def test_the_total_timeout_covers_all_texts_of_a_call() -> None:
    async with lms.AsyncClient("127.0.0.1:1") as client:
        state = ModelState("embedding", "vectors", instance=Instance("vectors"))
        flow = Embedder(context_of(client), state).vectors_of(["text"] * (2 * MAX_IN_FLIGHT))
        calls: list[Any] = [next(flow)]
        for _ in range(2 * MAX_IN_FLIGHT - 1):
            await asyncio.sleep(0)
            calls.append(flow.send([{"embedding": [1.0]}]))
        assert len({call.exchange.started for call in calls}) == 1
        assert calls[0].exchange.since < calls[-1].exchange.since
        flow.close()


@in_virtual_time
async def test_while_a_prediction_is_queued_only_the_total_timeout_runs(make_client: Callable[..., Any]) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        # The first request is silent for longer than its timeouts allow. This result is for its keepalive call.
        await send_result(socket, [])
        await send(socket, fragment("a"))
        await send(socket, packet(END))
        await send(socket, {"type": "channelClose", "channelId": 1})

    timeouts: dict[str, Any] = {"first_token_timeout": 1.0, "load_timeout": 1.0, "idle_timeout": 1.0}
    async with fake_server(behave) as address, make_client(address, **timeouts) as client:
        responding = asyncio.ensure_future(loaded_handle(client).respond("Hi"))
        await asyncio.sleep(30)
        assert not responding.done()
        assert await make_client(address).llm.list_loaded() == []
        assert (await responding).content == "a"
