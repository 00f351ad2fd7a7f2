"""Which timeout expires when, and what is cancelled on the server then."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.embeddings import Embedder
from lmstudio_integrations.client.models import attempts
from lmstudio_integrations.client.models.state import Instance, ModelState
from lmstudio_integrations.client.transport.operation import MAX_IN_FLIGHT, Operation
from lmstudio_integrations.emulator import Emulator, ManualClock
from lmstudio_integrations.protocol.endpoints import rpc
from tests.client.fake import Socket, authenticate, fake_server, receive, send, send_result
from tests.client.prediction_frames import END, fragment, loaded_handle, packet

UNLOADED: dict[str, Any] = {
    "type": "channelError",
    "channelId": 1,
    "error": {"title": "No model", "displayData": {"code": "generic.noModelMatchingQuery"}},
}

TIMEOUTS: list[tuple[str, list[dict[str, Any]], Callable[[Any], Any]]] = [
    ("load_timeout", [], lambda client: client.llm.model("chatty")),
    ("load_timeout", [packet({"type": "loadProgress", "progress": 0.5})], lambda client: client.llm.model("chatty")),
    (
        "first_token_timeout",
        [packet({"type": "promptProcessingProgress", "progress": 0.5})],
        lambda client: loaded_handle(client).respond("Hi"),
    ),
    ("idle_timeout", [fragment("a")], lambda client: loaded_handle(client).respond("Hi")),
    ("timeout", [], lambda client: loaded_handle(client).respond("Hi")),
    ("timeout", [fragment("a")], lambda client: loaded_handle(client).respond("Hi")),
    # The model is loaded again, which takes too long.
    ("timeout", [UNLOADED], lambda client: loaded_handle(client).respond("Hi")),
    ("idle_timeout", [], lambda client: client.llm.list_loaded()),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "frames", "call"), TIMEOUTS)
async def test_each_timeout_expires_in_its_turn_and_cancels_on_the_server(
    make_client: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    frames: list[dict[str, Any]],
    call: Callable[[Any], Any],
) -> None:
    monkeypatch.setattr(attempts, "RELOAD_DELAYS", (0.0,))
    received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        started = await receive(socket)
        for frame in frames:
            await send(socket, frame)
        while started["type"] == "channelCreate":
            started = await receive(socket)
        await received.put(started)

    others = dict.fromkeys(("load_timeout", "first_token_timeout", "idle_timeout", "timeout"))
    async with fake_server(behave) as address, make_client(address, **{**others, name: 0.2}) as client:
        with pytest.raises(lms.LMStudioTimeoutError, match=f"{name} expired") as caught:
            await call(client)
        assert caught.value.timeout_name == name
        if frames or name != "idle_timeout":  # otherwise it is a call, which cannot be cancelled
            assert (await asyncio.wait_for(received.get(), 600))["message"] == {"type": "cancel"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["load_timeout", "timeout"])
async def test_the_timeouts_of_a_prediction_apply_while_its_model_loads(
    make_client: Callable[..., Any], name: str
) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)

    async with fake_server(behave) as address, make_client(address) as client:
        with pytest.raises(lms.LMStudioTimeoutError, match=f"Model get/load: .* {name} expired"):
            await client.llm.lazy_model("chatty").respond("Hi", **{name: 0.2})


async def test_the_total_timeout_covers_all_requests_of_a_call() -> None:
    async with lms.AsyncClient("127.0.0.1:1", timeout=9) as client:
        whole = Operation(client._context, {"idle_timeout": 3.0})
        await asyncio.sleep(0)
        calls = [whole.start("llm", rpc("llm", "listLoaded"), None, label="Model list") for _ in range(2)]
        first, second = (call.exchange for call in calls)
        assert first.started == second.started < first.since < second.since
        assert (first.timeouts["timeout"], first.timeouts["idle_timeout"]) == (9, 3.0)
        assert client._context.timeouts["idle_timeout"] == 60.0


async def test_the_total_timeout_covers_all_texts_of_a_call() -> None:
    async with lms.AsyncClient("127.0.0.1:1") as client:
        state = ModelState("embedding", "vectors", instance=Instance("vectors"))
        flow = Embedder(client._context, state).vectors_of(["text"] * (2 * MAX_IN_FLIGHT))
        calls: list[Any] = [next(flow)]
        for _ in range(2 * MAX_IN_FLIGHT - 1):
            await asyncio.sleep(0)
            calls.append(flow.send([{"embedding": [1.0]}]))
        assert len({call.exchange.started for call in calls}) == 1
        assert calls[0].exchange.since < calls[-1].exchange.since
        flow.close()


async def test_a_handle_may_have_timeouts_of_its_own(make_client: Callable[..., Any]) -> None:
    with Emulator(["chatty"], latency=60, clock=ManualClock()) as server:
        async with make_client(server.address) as client:
            model = client.llm.lazy_model("chatty").with_timeouts(timeout=0.05)
            with pytest.raises(lms.LMStudioTimeoutError, match="timeout expired"):
                await model.count_tokens("a")
            with pytest.raises(lms.LMStudioValueError, match="waiting_time"):
                model.with_timeouts(waiting_time=5)
            with pytest.raises(lms.LMStudioValueError, match=r"timeout .* 0"):
                model.with_timeouts(timeout=0)


@pytest.mark.slow
async def test_while_a_prediction_is_queued_only_the_total_timeout_runs(make_client: Callable[..., Any]) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        # The first request is silent for longer than its timeouts allow. This result is for its keepalive call.
        await send_result(socket, [])
        await send(socket, fragment("a"))
        await send(socket, packet(END))
        await send(socket, {"type": "channelClose", "channelId": 1})

    timeouts = {"first_token_timeout": 0.1, "load_timeout": 0.1, "idle_timeout": 0.1}
    async with fake_server(behave) as address, make_client(address, **timeouts) as client:
        responding = asyncio.ensure_future(loaded_handle(client).respond("Hi"))
        await asyncio.wait([responding], timeout=0.3)
        assert not responding.done()
        assert await make_client(address).llm.list_loaded() == []
        assert (await responding).content == "a"
