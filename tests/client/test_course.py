"""The course of a call: what runs out when, what is cancelled, what is repeated, and what a stream is left with."""

import asyncio
import gc
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client import _retries
from lmstudio_integrations.client._binding import Binding
from lmstudio_integrations.client._models import embed
from lmstudio_integrations.client.transport.flows import MAX_IN_FLIGHT
from lmstudio_integrations.emulator import Emulator, ManualClock
from lmstudio_integrations.protocol.endpoints import rpc
from tests.client.fake import Socket, answer, fake_server, let_in, receive, send, send_together

INFO = {"identifier": "chatty", "modelKey": "chatty"}
STATS = {"stopReason": "eosFound"}
END = {"type": "success", "stats": STATS, "modelInfo": {}, "loadModelConfig": {}, "predictionConfig": {}}


def packet(message: object) -> dict[str, Any]:
    """Return a frame with a packet of the first channel."""
    return {"type": "channelSend", "channelId": 1, "message": message}


def fragment(text: str) -> dict[str, Any]:
    return packet({"type": "fragment", "fragment": {"content": text, "tokensCount": 1, "reasoningType": "none"}})


TIMEOUTS: list[tuple[str, list[dict[str, Any]], Callable[[Any], Any]]] = [
    ("load_timeout", [], lambda client: client.llm.model("chatty")),
    ("load_timeout", [packet({"type": "loadProgress", "progress": 0.5})], lambda client: client.llm.model("chatty")),
    (
        "first_token_timeout",
        [packet({"type": "promptProcessingProgress", "progress": 0.5})],
        lambda client: _loaded(client).respond("Hi"),
    ),
    ("idle_timeout", [fragment("a")], lambda client: _loaded(client).respond("Hi")),
    ("timeout", [], lambda client: _loaded(client).respond("Hi")),
    ("timeout", [fragment("a")], lambda client: _loaded(client).respond("Hi")),
    ("idle_timeout", [], lambda client: client.llm.list_loaded()),
]


def _loaded(client: Any) -> Any:
    """Return a handle that needs no call to know its instance."""
    handle = client.llm.lazy_model("chatty")
    handle.binding.identifier = "chatty"
    return handle


async def _joined(stream: Any) -> str:
    """Return the text of a stream."""
    return "".join([fragment.content async for fragment in stream])


@pytest.mark.parametrize(("clock", "frames", "call"), TIMEOUTS)
async def test_each_clock_runs_out_in_its_turn_and_the_server_is_told(
    make_client: Callable[..., Any], clock: str, frames: list[dict[str, Any]], call: Callable[[Any], Any]
) -> None:
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def behave(socket: Socket) -> None:
        await let_in(socket)
        started = await receive(socket)
        for frame in frames:
            await send(socket, frame)
        if started["type"] == "channelCreate":
            await told.put(await receive(socket))

    others = dict.fromkeys(("load_timeout", "first_token_timeout", "idle_timeout", "timeout"))
    async with fake_server(behave) as address, make_client(address, **{**others, clock: 0.2}) as client:
        with pytest.raises(lms.LMStudioTimeoutError, match=f"{clock} expired") as caught:
            await call(client)
        assert caught.value.timeout_name == clock
        if frames or clock != "idle_timeout":
            assert (await asyncio.wait_for(told.get(), 5))["message"] == {"type": "cancel"}


@pytest.mark.parametrize("clock", ["load_timeout", "timeout"])
async def test_the_limits_of_a_prediction_hold_while_its_model_loads(
    make_client: Callable[..., Any], clock: str
) -> None:
    async def behave(socket: Socket) -> None:
        await let_in(socket)
        await receive(socket)

    async with fake_server(behave) as address, make_client(address) as client:
        with pytest.raises(lms.LMStudioTimeoutError, match=f"Model get/load: .* {clock} expired"):
            await client.llm.lazy_model("chatty").respond("Hi", **{clock: 0.2})


async def test_the_total_clock_runs_over_all_that_a_call_consists_of() -> None:
    async with lms.AsyncClient("127.0.0.1:1", timeout=9) as client:
        whole = client._dispatcher.for_operation({"idle_timeout": 3.0})
        await asyncio.sleep(0)
        calls = [whole.start("llm", rpc("llm", "listLoaded")) for _ in range(2)]
        first, second = (call._exchange for call in calls)
        assert first.started == second.started < first.since < second.since
        assert (first.timeouts["timeout"], first.timeouts["idle_timeout"]) == (9, 3.0)
        assert client._dispatcher.timeouts["idle_timeout"] == 60.0


async def test_the_total_clock_runs_over_all_texts_of_a_call() -> None:
    async with lms.AsyncClient("127.0.0.1:1") as client:
        flow = embed(client._dispatcher, Binding("embedding", "vectors", "vectors"), ["text"] * (2 * MAX_IN_FLIGHT))
        calls = [next(flow)]
        for _ in range(2 * MAX_IN_FLIGHT - 1):
            await asyncio.sleep(0)
            calls.append(flow.send([{"embedding": [1.0]}]))
        assert len({call._exchange.started for call in calls}) == 1
        assert calls[0]._exchange.since < calls[-1]._exchange.since
        flow.close()


async def test_a_handle_may_have_limits_of_its_own(make_client: Callable[..., Any]) -> None:
    with Emulator(["chatty"], latency=60, clock=ManualClock()) as server:
        async with make_client(server.address) as client:
            model = client.llm.lazy_model("chatty").with_timeouts(timeout=0.05)
            with pytest.raises(lms.LMStudioTimeoutError, match="timeout expired"):
                await model.count_tokens("a")
            with pytest.raises(lms.LMStudioValueError, match="patience"):
                model.with_timeouts(patience=5)
            with pytest.raises(lms.LMStudioValueError, match=r"timeout .* 0"):
                model.with_timeouts(timeout=0)


async def test_a_stream_outlives_the_names_of_its_client_and_its_model(server: Emulator) -> None:
    stream = lms.AsyncClient(server.address).llm.lazy_model("chatty").respond_stream("count")
    await anext(stream)
    gc.collect()
    assert (await stream.wait_for_result()).content.endswith("199")


async def test_while_a_prediction_waits_in_the_queue_only_the_total_clock_runs(make_client: Callable[..., Any]) -> None:
    async def behave(socket: Socket) -> None:
        await let_in(socket)
        await receive(socket)
        await answer(socket, [])  # of a client that has been patient for longer than the timeouts of the first allow
        await send(socket, fragment("a"))
        await send(socket, packet(END))
        await send(socket, {"type": "channelClose", "channelId": 1})

    timeouts = {"first_token_timeout": 0.1, "load_timeout": 0.1, "idle_timeout": 0.1}
    async with fake_server(behave) as address, make_client(address, **timeouts) as client:
        answering = asyncio.ensure_future(_loaded(client).respond("Hi"))
        await asyncio.wait([answering], timeout=0.3)
        assert not answering.done()
        assert await make_client(address).llm.list_loaded() == []
        assert (await answering).content == "a"


async def test_a_load_that_is_given_up_is_cancelled_on_the_server() -> None:
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def behave(socket: Socket) -> None:
        await let_in(socket)
        await told.put(await receive(socket))
        await told.put(await receive(socket))

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        loading = asyncio.ensure_future(client.llm.load_new_instance("chatty"))
        assert (await asyncio.wait_for(told.get(), 5))["endpoint"] == "loadModel"
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert (await asyncio.wait_for(told.get(), 5))["message"] == {"type": "cancel"}


async def test_a_generation_that_has_started_is_never_repeated(client: Any, server: Emulator) -> None:
    model = await client.llm.model("chatty")
    stream = model.respond_stream("for ever")
    fragments = aiter(stream)
    await anext(fragments)
    server.unload("chatty")
    with pytest.raises(lms.LMStudioModelUnloadedError):
        async for _fragment in fragments:
            pass
    assert len(server.predictions) == 1
    assert server.loaded() == []


async def test_a_model_is_renewed_three_times_and_no_more(
    make_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_retries, "RELOAD_PAUSES", (0.0, 0.01, 0.01))
    asked: list[str] = []
    gone = {"title": "No model", "displayData": {"code": "generic.noModelMatchingQuery"}}

    async def behave(socket: Socket) -> None:
        await let_in(socket)
        for channel in range(1, 8):
            frame = await receive(socket)
            asked.append(frame["endpoint"])
            if frame["endpoint"] == "predict":
                await send(socket, {"type": "channelError", "channelId": channel, "error": gone})
            else:
                await send(socket, {**packet({"type": "loadSuccess", "info": INFO}), "channelId": channel})
                await send(socket, {"type": "channelClose", "channelId": channel})

    async with fake_server(behave) as address, make_client(address) as client:
        with pytest.raises(
            lms.LMStudioModelUnloadedError, match="model 'chatty' was unloaded: its TTL expired"
        ) as error:
            await _loaded(client).respond("Hi")
    assert asked == ["predict", *["getOrLoad", "predict"] * 3]
    assert error.value.retryable


@pytest.mark.parametrize("together", [True, False])
async def test_an_unloaded_model_whose_response_was_seen_is_not_retryable(
    make_client: Callable[..., Any], *, together: bool
) -> None:
    unloaded = packet({**END, "stats": {"stopReason": "modelUnloaded"}})

    async def behave(socket: Socket) -> None:
        await let_in(socket)
        await receive(socket)
        send_together(socket, [fragment("a"), *([unloaded] if together else [])])
        await read.wait()
        send_together(socket, [] if together else [unloaded])

    read = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with fake_server(behave) as address, make_client(address) as client:
        stream = _loaded(client).respond_stream("Hi", on_first_token=lambda: loop.call_soon_threadsafe(read.set))
        with pytest.raises(lms.LMStudioModelUnloadedError) as caught:
            await _joined(stream)
    assert not caught.value.retryable


@pytest.mark.parametrize("name", ["get_info", "get_load_config", "get_processing_state", "get_context_length"])
async def test_asking_about_a_model_that_has_gone_does_not_load_it(client: Any, server: Emulator, name: str) -> None:
    model = await client.llm.model("chatty")
    server.unload("chatty")
    with pytest.raises(lms.LMStudioModelNotFoundError):
        await getattr(model, name)()
    assert server.loaded() == []


async def test_unloading_loads_nothing(client: Any, server: Emulator) -> None:
    with pytest.raises(lms.LMStudioModelNotFoundError):
        await client.llm.lazy_model("chatty").unload()
    await client.llm.model("other")
    await client.llm.lazy_model().unload()
    assert server.loaded() == []


async def test_a_stream_that_failed_gives_its_error_as_its_result(client: Any) -> None:
    stream = (await client.llm.model("chatty")).respond_stream("break")
    with pytest.raises(lms.LMStudioServerError, match="the engine gave up") as caught:
        await stream.wait_for_result()
    with pytest.raises(lms.LMStudioServerError) as again:
        stream.result()
    assert again.value is caught.value


@pytest.mark.parametrize("together", [True, False])
async def test_a_message_is_told_only_when_all_is_well_with_it(make_client: Callable[..., Any], together: bool) -> None:
    failed = {**END, "stats": {"stopReason": "failed"}}

    async def behave(socket: Socket) -> None:
        await let_in(socket)
        await receive(socket)
        send_together(socket, [fragment("a"), *([packet(failed)] if together else [])])
        await read.wait()
        send_together(socket, [] if together else [packet(failed)])

    messages: list[Any] = []
    fragments: list[str] = []
    read = asyncio.Event()
    async with fake_server(behave) as address, make_client(address) as client:
        stream = _loaded(client).respond_stream("Hi", on_message=messages.append)
        fragments.append((await anext(stream)).content)
        read.set()
        with pytest.raises(lms.LMStudioPredictionError, match="the generation failed"):
            await stream.wait_for_result()
        with pytest.raises(lms.LMStudioPredictionError, match="the generation failed"):
            stream.result()
    assert (messages, fragments) == ([], ["a"])


@pytest.mark.parametrize(
    "rest", [lambda stream: stream, lambda stream: stream.events(), lambda stream: stream.batches()]
)
async def test_one_way_of_reading_takes_up_where_another_stopped(
    make_client: Callable[..., Any], rest: Callable[[Any], Any]
) -> None:
    async def behave(socket: Socket) -> None:
        await let_in(socket)
        await receive(socket)
        send_together(socket, [*map(fragment, "abcdefg"), packet(END)])

    async with fake_server(behave) as address, make_client(address) as client:
        stream = _loaded(client).respond_stream("Hi")
        events = stream.events()
        seen = [await anext(stream), await anext(events), await anext(stream)]
        async for each in rest(stream):
            seen += each if isinstance(each, list) else [each]
    assert "".join(event.content for event in seen if isinstance(event, lms.LlmPredictionFragment)) == "abcdefg"


def test_a_warning_points_to_the_line_of_the_program(server: Emulator) -> None:
    with lms.Client(server.address) as client:
        client.llm.model("chatty", config={"contextLength": 1000})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            client.llm.model("chatty", config={"contextLength": 2000})
    assert [warning.filename for warning in caught] == [__file__]


async def test_a_warning_points_to_the_line_of_the_coroutine(server: Emulator) -> None:
    async with lms.AsyncClient(server.address) as client:
        await client.llm.model("chatty", config={"contextLength": 1000})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await client.llm.model("chatty", config={"contextLength": 2000})
    assert [warning.filename for warning in caught] == [__file__]


async def test_the_sync_client_works_where_a_loop_is_running(server: Emulator) -> None:
    asyncio.get_running_loop()  # as in a notebook
    with lms.Client(server.address) as client:
        model = client.llm.model("chatty")
        assert model.respond("count").content.endswith("199")
        assert sum(1 for _fragment in model.respond_stream("count")) == 200


def test_a_stream_may_be_cancelled_from_another_thread(server: Emulator) -> None:
    with lms.Client(server.address) as client:
        stream = client.llm.model("chatty").respond_stream("for ever")
        next(stream)
        canceller = threading.Thread(target=stream.cancel)
        canceller.start()
        result = stream.wait_for_result()
        canceller.join(5)
    assert result.stats.stop_reason == "userStopped"
    assert result.content.startswith("on and")


async def test_a_tool_call_that_cannot_be_read_ends_the_loop_and_is_told_first(make_client: Callable[..., Any]) -> None:
    told: list[tuple[Exception, Any]] = []

    async def behave(socket: Socket) -> None:
        await let_in(socket)
        await receive(socket)
        await send(socket, packet({"type": "toolCallGenerationStart"}))
        failed = {"type": "toolCallGenerationFailed", "error": {"title": "Cut off"}, "rawContent": '{"a": '}
        await send(socket, packet(failed))
        await send(socket, packet(END))

    def add(a: int) -> int:
        """Add."""
        return a

    async with fake_server(behave) as address, make_client(address) as client:
        with pytest.raises(lms.LMStudioToolCallError, match="Cut off") as caught:
            await _loaded(client).act(
                "Hi", [add], handle_invalid_tool_request=lambda error, request: told.append((error, request))
            )
    assert told == [(caught.value, None)]
    assert caught.value.raw_content == '{"a": '
