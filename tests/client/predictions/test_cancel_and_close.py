"""Streams that are cancelled or closed before their end: elsewhere, by their reader, while the model loads.

No test sleeps. Before it stops a stream, a test waits until the server is at the gate, or has received a request.
"""

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.models.model import Retries
from lmstudio_integrations.client.predictions import prediction
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.client.fake import Socket, authenticate, fake_server, hang_up, receive, send, until_stopped
from tests.client.prediction_frames import END, INFO, fragment, joined, loaded_handle, packet
from tests.support.endless import ENDLESS
from tests.support.gate import AT_THE_GATE, Gate
from tests.support.virtual_time import in_virtual_time

CLOSED = "closed before its end"
CANCELLED = "cancelled before its result arrived"
RULES: tuple[dict[str, Any], ...] = (
    {"when": {"last": "^wait"}, "then": [AT_THE_GATE, {"text": "so far"}, {"fault": "drop"}]},
    {"when": {"last": "^for ever"}, "then": ENDLESS},
)


@pytest.fixture
def server(gate: Gate) -> Iterator[Emulator]:
    with Emulator([ModelEntry(key="chatty", rules=RULES)], engines=gate.engines()) as running:
        yield running


async def _at_the_gate(stream: Any, gate: Gate) -> "asyncio.Future[str]":
    """Return a reader of a stream, which waits for an event."""
    reader = asyncio.ensure_future(joined(stream))
    assert await asyncio.to_thread(gate.reached.wait, 600)
    return reader


# Elsewhere


async def test_the_reader_of_a_stream_that_is_closed_elsewhere_gets_an_error(
    model: Any, server: Emulator, gate: Gate
) -> None:
    stream = model.respond_stream("wait")
    reader = await _at_the_gate(stream, gate)
    await stream.aclose()
    with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
        await asyncio.wait_for(reader, 600)
    with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
        stream.result()
    await until_stopped(server)


SECOND_READERS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "result": lambda stream: stream.wait_for_result(),
    "fragments": joined,
    "events": lambda stream: joined(stream.events()),
}


@pytest.mark.parametrize("second", SECOND_READERS.values(), ids=SECOND_READERS)
async def test_a_second_reader_is_rejected_and_the_response_of_the_first_is_not_repeated(
    model: Any, server: Emulator, gate: Gate, second: Callable[[Any], Awaitable[Any]]
) -> None:
    stream = model.with_retries(1).respond_stream("wait")
    reader = await _at_the_gate(stream, gate)
    with pytest.raises(lms.LMStudioRuntimeError, match="read from one stream"):
        await second(stream)
    assert not reader.done()
    gate.open()
    with pytest.raises(lms.LMStudioConnectionLostError):
        await asyncio.wait_for(reader, 600)
    assert len(server.predictions) == 1


@pytest.mark.slow
async def test_an_iterator_that_was_never_read_may_be_dropped(model: Any, server: Emulator, gate: Gate) -> None:
    stream = model.respond_stream("wait")
    await stream.start()
    for make in (aiter, lambda stream: stream.events(), lambda stream: stream.batches()):
        make(stream)
    gc.collect()  # runs `__del__` of the iterators now, which would stop a stream that they had read from
    reader = await _at_the_gate(stream, gate)
    assert server.predictions[-1].state == "running"
    stream.cancel()
    assert await asyncio.wait_for(reader, 600) == ""
    assert stream.result().stats.stop_reason == "userStopped"


# By the reader


def test_the_thread_that_closes_a_stream_reads_its_end(server: Emulator) -> None:
    with lms.Client(server.address) as client:
        stream = client.llm.model("chatty").respond_stream("for ever")
        for _fragment in stream:
            stream.close()
        assert list(stream) == []
        with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
            stream.result()


async def test_reading_on_after_the_reading_task_was_cancelled_is_an_error(model: Any, gate: Gate) -> None:
    fragments = aiter(model.respond_stream("wait"))
    reader = await _at_the_gate(fragments, gate)
    reader.cancel()  # as `asyncio.wait_for` does when its timeout expires
    with pytest.raises(asyncio.CancelledError):
        await reader
    with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
        await anext(fragments)


async def test_ending_the_loop_early_stops_the_server_and_the_stream_has_no_end(model: Any, server: Emulator) -> None:
    stream = model.respond_stream("for ever")
    async for _fragment in stream:
        break
    await until_stopped(server)
    with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
        await joined(stream)
    with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
        stream.result()


async def test_leaving_a_stream_reaches_the_server_before_an_error_is_made(
    model: Any, server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bool] = []

    def make(message: str) -> lms.LMStudioCancelledError:
        made.append(request.server_is_done)  # the first error of a process compiles the pattern of secrets
        return lms.LMStudioCancelledError(message)

    async with model.respond_stream("for ever") as stream:
        await anext(stream)
        request = stream._prediction._ask.request
        monkeypatch.setattr(prediction, "LMStudioCancelledError", make)
    assert made == [True]
    await until_stopped(server)


# Before the first fragment


async def _ends_without_a_result(reader: Awaitable[str], stream: Any) -> None:
    assert await asyncio.wait_for(reader, 600) == ""
    with pytest.raises(lms.LMStudioCancelledError, match=CANCELLED):
        stream.result()


async def test_a_stream_that_is_cancelled_before_the_client_is_accepted_ends() -> None:
    received = asyncio.Event()

    async def behave(socket: Socket) -> None:
        await receive(socket)  # and never accept the client, so that its request is held back
        received.set()

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        stream = loaded_handle(client).respond_stream("Hi")
        reader = asyncio.ensure_future(joined(stream))
        await asyncio.wait_for(received.wait(), 600)
        stream.cancel()
        await _ends_without_a_result(reader, stream)


def _load(client: Any, policy: Any) -> Any:
    return client.llm.lazy_model("chatty", load_policy=policy).respond_stream("Hi")


STOPS: dict[str, tuple[str, Callable[[Any], Any], str, str | None]] = {
    # The server rejects the request after the cancel. Without the cancel, the stream would try the next request, or
    # load the model.
    "a text": (
        "cancel",
        lambda client: loaded_handle(client).complete_stream("Hi"),
        "completeRawText",
        "generic.engineDoesNotSupportFeature",
    ),
    "a response": (
        "cancel",
        lambda client: loaded_handle(client).respond_stream("Hi"),
        "predict",
        "generic.noModelMatchingQuery",
    ),
    "a load": ("cancel", lambda client: _load(client, "get_or_load"), "getOrLoad", None),
    "a load, closed": ("aclose", lambda client: _load(client, "get_or_load"), "getOrLoad", None),
    "a load of a new instance, closed": ("aclose", lambda client: _load(client, "new_instance"), "loadModel", None),
}


@pytest.mark.parametrize(("stop", "begin", "endpoint", "rejection"), STOPS.values(), ids=STOPS)
async def test_a_stream_that_is_stopped_cancels_its_request_and_makes_no_other(
    stop: str, begin: Callable[[Any], Any], endpoint: str, rejection: str | None
) -> None:
    frames: list[str] = []
    requested = asyncio.Event()

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        frames.append((await receive(socket))["endpoint"])
        requested.set()
        frames.append((await receive(socket))["message"]["type"])
        if rejection is not None:
            error = {"title": "no", "displayData": {"code": rejection}}
            await send(socket, {"type": "channelError", "channelId": 1, "error": error})
        frames.extend([str(text) async for text in socket])

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        stream = begin(client)
        reader = asyncio.ensure_future(joined(stream))
        await asyncio.wait_for(requested.wait(), 600)
        if stop == "cancel":
            stream.cancel()
            await _ends_without_a_result(reader, stream)
        else:
            await stream.aclose()
            with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
                await asyncio.wait_for(reader, 600)
    assert frames == [endpoint, "cancel"]


@pytest.mark.parametrize("moment", ["before the pause", "in the pause"])
async def test_cancelling_a_stream_ends_the_pause_before_a_retry(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    async with fake_server(hang_up) as address, lms.AsyncClient(address) as client:
        stream = loaded_handle(client).with_retries(1).respond_stream("Hi")

        # The delay is chosen after the check of whether the stream was cancelled, and before the failed call is reset.
        def cancel_meanwhile(_retries: object, _error: object) -> float:
            if moment == "before the pause":
                stream.cancel()
            else:
                asyncio.get_running_loop().call_soon(stream.cancel)
            return 3_600.0

        monkeypatch.setattr(Retries, "next_delay", cancel_meanwhile)
        await _ends_without_a_result(joined(stream), stream)


@pytest.mark.parametrize("moment", ["before the request is sent", "before the call is recorded"])
@pytest.mark.parametrize("stop", ["cancel", "close"])
def test_a_stream_that_is_stopped_just_as_its_request_is_sent_stops_the_server(
    server: Emulator, monkeypatch: pytest.MonkeyPatch, stop: str, moment: str
) -> None:
    start = Operation.start

    def start_and_stop(operation: Operation, *args: Any, **kwargs: Any) -> Any:
        if moment == "before the request is sent":
            getattr(stream, stop)()
        call = start(operation, *args, **kwargs)
        getattr(stream, stop)()
        return call

    with lms.Client(server.address) as client:
        stream = client.llm.model("chatty").respond_stream("for ever")
        monkeypatch.setattr(Operation, "start", start_and_stop)
        arrived = "".join(fragment.content for fragment in stream)
        server.wait_for(lambda: [each.stop_reason for each in server.predictions] == ["userStopped"])
        if stop == "cancel":
            assert (stream.result().content, stream.result().stats.stop_reason) == (arrived, "userStopped")
        else:
            with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
                stream.result()


# While the model loads


@pytest.mark.parametrize(("stop", "reason"), [("cancel", CANCELLED), ("close", CLOSED)])
def test_a_stream_that_is_stopped_once_its_model_is_loaded_sends_no_request(
    server: Emulator, stop: str, reason: str
) -> None:
    def stop_when_loaded(progress: float) -> None:
        if progress == 1.0:  # after the load, before the prediction is requested
            getattr(stream, stop)()

    with lms.Client(server.address) as client:
        stream = client.llm.lazy_model("chatty", on_load_progress=stop_when_loaded).respond_stream("Hi")
        with pytest.raises(lms.LMStudioCancelledError, match=reason):
            stream.wait_for_result()
    assert [info.identifier for info in server.loaded()] == ["chatty"]
    assert server.predictions == ()


@pytest.mark.parametrize("closed_index", [0, 1])
async def test_one_of_two_streams_that_wait_for_a_new_instance_may_be_closed(closed_index: int) -> None:
    frames: asyncio.Queue[tuple[Socket, dict[str, Any]]] = asyncio.Queue()

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        async for text in socket:
            await frames.put((socket, json.loads(text)))

    async def next_frame(kind: str) -> tuple[Socket, int]:
        socket, frame = await asyncio.wait_for(frames.get(), 600)
        assert (frame.get("endpoint") or frame["message"]["type"]) == kind
        return socket, frame["channelId"]

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        handle = client.llm.lazy_model("chatty", load_policy="new_instance")
        streams = [handle.respond_stream("Hi") for _ in range(2)]
        # In this order: the first stream loads, and the second waits for that load.
        readers = [asyncio.ensure_future(joined(stream)) for stream in streams]
        socket, channel = await next_frame("loadModel")
        await streams[closed_index].aclose()
        with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
            await asyncio.wait_for(readers[closed_index], 600)
        if closed_index == 0:  # the other stream takes over with a load of its own
            await next_frame("cancel")
            socket, channel = await next_frame("loadModel")
        await send(socket, {**packet({"type": "success", "info": INFO}), "channelId": channel})
        socket, channel = await next_frame("predict")
        await send(socket, {**packet(END), "channelId": channel})
        assert await asyncio.wait_for(readers[1 - closed_index], 600) == ""


@in_virtual_time
async def test_a_response_that_the_server_cuts_off_without_its_end_is_an_error() -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        request = await receive(socket)
        for frame in (fragment("a"), {"type": "channelClose", "channelId": request["channelId"]}):
            await send(socket, frame)
        await socket.wait_closed()

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        with pytest.raises(lms.LMStudioChannelClosedError):
            await loaded_handle(client).respond("Hi")
