"""Streams that are cancelled or closed before their end: elsewhere, by their reader, while the model loads.

No test sleeps. The scripted model stalls after "stall", and writes for very long after "for ever". Before it stops a
stream, a test waits for an event that the server sets, or for the moment at which the reader of the stream waits.
"""

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.models import attempts
from lmstudio_integrations.client.models.attempts import Retries
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.predictions.prediction import Prediction
from lmstudio_integrations.client.transport.mailboxes import IOTask
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.emulator import Emulator
from tests.client.both import make_client
from tests.client.fake import Socket, authenticate, fake_server, receive, send, send_result, wait_until
from tests.client.prediction_frames import fragment, loaded_handle, packet

__all__ = ["make_client"]

CLOSED = "closed before its end"
CANCELLED = "cancelled before its result arrived"
LOADED = {"type": "success", "info": {"identifier": "chatty", "modelKey": "chatty"}}
END = {"type": "success", "stats": {"stopReason": "eosFound"}}


async def _wait_until_stopped(server: Emulator) -> None:
    """Wait, without blocking this loop, until the server has stopped the last generation."""
    await asyncio.to_thread(server.wait_for, lambda: server.predictions[-1].stop_reason == "userStopped")


async def _read(stream: AsyncIterator[Any]) -> str:
    return "".join([fragment.content async for fragment in stream])


async def _wait_for_result(stream: Any) -> Any:
    return await stream.wait_for_result()


async def _wait_until_reading(stream: Any) -> None:
    """Wait until the reader of a stream waits for an event."""
    # `_step` is what the reader waits for, `_waiting` says that it has begun to. Both are set before the reader blocks,
    # so whatever happens after this wakes it.
    prediction = stream._prediction
    await wait_until(lambda: prediction._step is not None and prediction._step.mailbox._waiting)


async def _wait_until_stalled(stream: Any) -> None:
    """Wait until the reader of a stream has read everything and waits for more."""
    # The last fragment before the model stalls is a space. A reader that waits before it arrived would be woken again.
    prediction = stream._prediction
    await wait_until(
        lambda: (
            [each.content for each in prediction._ask.raw.fragments[-1:]] == [" "] and prediction._step.mailbox._waiting
        )
    )


# Elsewhere


@pytest.mark.parametrize("read", [_read, _wait_for_result])
async def test_the_reader_of_a_stream_that_is_closed_elsewhere_gets_an_error(
    model: Any, server: Emulator, read: Callable[[Any], Any]
) -> None:
    stream = model.respond_stream("stall")
    reader = asyncio.ensure_future(read(stream))
    await _wait_until_stalled(stream)
    await stream.aclose()
    with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
        await asyncio.wait_for(reader, 600)
    with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
        stream.result()
    await _wait_until_stopped(server)


async def test_a_second_reader_is_rejected_and_does_not_disturb_the_first(model: Any, server: Emulator) -> None:
    stream = model.respond_stream("stall")
    reader = asyncio.ensure_future(_read(stream))
    await _wait_until_stalled(stream)
    for second in (_wait_for_result, _read, lambda stream: _read(stream.events())):
        with pytest.raises(lms.LMStudioRuntimeError, match="read from one stream"):
            await second(stream)
    await _continues(stream, reader, server)


async def test_a_response_is_not_repeated_because_a_second_reader_was_rejected(
    make_client: Callable[..., Any],
) -> None:
    rejected, read = asyncio.Event(), asyncio.Event()
    requests: list[str] = []

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        requests.append((await receive(socket))["endpoint"])
        await rejected.wait()
        await send(socket, fragment("a"))
        await read.wait()
        await socket.close()

    async with fake_server(behave) as address, make_client(address) as client:
        stream = loaded_handle(client).with_retries(1).respond_stream("Hi")
        first = asyncio.ensure_future(anext(stream))
        await _wait_until_reading(stream)
        with pytest.raises(lms.LMStudioRuntimeError, match="read from one stream"):
            await stream.wait_for_result()
        rejected.set()
        assert (await asyncio.wait_for(first, 600)).content == "a"
        read.set()
        with pytest.raises(lms.LMStudioConnectionLostError):
            await asyncio.wait_for(_read(stream), 600)
    assert requests == ["predict"]


@pytest.mark.slow
async def test_an_iterator_that_was_never_read_may_be_dropped(model: Any, server: Emulator) -> None:
    stream = model.respond_stream("stall")
    await anext(stream)
    for make in (aiter, lambda stream: stream.events(), lambda stream: stream.batches()):
        make(stream)
    gc.collect()  # runs `__del__` of the iterators now, which would stop a stream that they had read from
    reader = asyncio.ensure_future(_read(stream))
    await _wait_until_stalled(stream)
    await _continues(stream, reader, server)


async def _continues(stream: Any, reader: "asyncio.Future[str]", server: Emulator) -> None:
    """Check that a stream is still read: it ends when it is cancelled, and has its result."""
    assert server.predictions[-1].state == "running"
    stream.cancel()
    await asyncio.wait_for(reader, 600)
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


async def test_the_task_that_closes_a_stream_reads_its_end(server: Emulator) -> None:
    async with lms.AsyncClient(server.address) as client:
        stream = (await client.llm.model("chatty")).respond_stream("for ever")
        async for _fragment in stream:
            await stream.aclose()
        assert await _read(stream) == ""
        with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
            stream.result()


async def test_reading_on_after_the_reading_task_was_cancelled_is_an_error(server: Emulator) -> None:
    async with lms.AsyncClient(server.address) as client:
        stream = (await client.llm.model("chatty")).respond_stream("stall")
        fragments = aiter(stream)
        reader = asyncio.ensure_future(_read(fragments))  # as `asyncio.wait_for` does when its timeout expires
        await _wait_until_stalled(stream)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
            await anext(fragments)


async def test_ending_the_loop_early_stops_the_server_and_the_stream_has_no_end(model: Any, server: Emulator) -> None:
    stream = model.respond_stream("for ever")
    async for _fragment in stream:
        break
    await _wait_until_stopped(server)
    with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
        await _read(stream)
    with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
        stream.result()


# Before the first fragment


def _loaded(client: Any) -> Any:
    """Return a handle that needs no call to know its instance."""
    handle = client.llm.lazy_model("chatty")
    handle.model.state.instance = Instance("chatty")
    return handle


async def test_a_stream_that_is_cancelled_before_the_client_is_accepted_ends(make_client: Callable[..., Any]) -> None:
    async def behave(socket: Socket) -> None:
        await receive(socket)  # and never accept the client, so that its request is held back

    async with fake_server(behave) as address, make_client(address) as client:
        stream = _loaded(client).respond_stream("Hi")
        reader = asyncio.ensure_future(_read(stream))
        await _wait_until_reading(stream)
        stream.cancel()
        assert await asyncio.wait_for(reader, 600) == ""
        with pytest.raises(lms.LMStudioCancelledError, match=CANCELLED):
            stream.result()


@pytest.mark.parametrize(
    ("method", "endpoint", "code"),
    [
        ("complete_stream", "completeRawText", "generic.engineDoesNotSupportFeature"),
        ("respond_stream", "predict", "generic.noModelMatchingQuery"),
    ],
)
async def test_a_cancelled_stream_is_not_requested_again(
    make_client: Callable[..., Any], method: str, endpoint: str, code: str
) -> None:
    frames: list[str] = []
    requested = asyncio.Event()
    rejected = {"title": "no", "displayData": {"code": code}}

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        frames.append((await receive(socket))["endpoint"])
        requested.set()
        frames.append((await receive(socket))["message"]["type"])
        await send(socket, {"type": "channelError", "channelId": 1, "error": rejected})
        frames.extend([str(text) async for text in socket])

    async with fake_server(behave) as address, make_client(address) as client:
        stream = getattr(_loaded(client), method)("Once")
        reader = asyncio.ensure_future(_read(stream))
        await asyncio.wait_for(requested.wait(), 600)
        # The server rejects the request after the cancel. Without the cancel, the stream would try the next request, or
        # load the model.
        stream.cancel()
        assert await asyncio.wait_for(reader, 600) == ""
        with pytest.raises(lms.LMStudioCancelledError, match=CANCELLED):
            stream.result()
    assert frames == [endpoint, "cancel"]


async def _disconnect(socket: Socket) -> None:
    await authenticate(socket)
    await receive(socket)
    await socket.close()


async def test_cancelling_a_stream_ends_the_pause_before_a_retry(
    make_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "INITIAL_DELAY", 60.0)
    monkeypatch.setattr(attempts, "MAX_DELAY", 60.0)

    async with fake_server(_disconnect) as address, make_client(address) as client:
        stream = _loaded(client).with_retries(1).respond_stream("Hi")
        reader = asyncio.ensure_future(_read(stream))
        run = stream._prediction
        await wait_until(lambda: isinstance(run._step, IOTask) and run._step.mailbox._waiting)
        stream.cancel()
        assert await asyncio.wait_for(reader, 600) == ""
        with pytest.raises(lms.LMStudioCancelledError, match=CANCELLED):
            stream.result()


async def test_cancelling_a_stream_just_before_a_retry_ends_the_pause(
    make_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_server(_disconnect) as address, make_client(address) as client:
        stream = _loaded(client).with_retries(1).respond_stream("Hi")

        # The delay is chosen after the check of whether the stream was cancelled, and before the failed call is reset.
        def cancel_meanwhile(_retries: object, _error: object) -> float:
            stream.cancel()
            return 60.0

        monkeypatch.setattr(Retries, "next_delay", cancel_meanwhile)
        assert await asyncio.wait_for(_read(stream), 600) == ""
        with pytest.raises(lms.LMStudioCancelledError, match=CANCELLED):
            stream.result()


async def test_a_stream_that_is_closed_just_as_its_request_is_sent_is_stopped(make_client: Callable[..., Any]) -> None:
    frames: list[str] = []
    stopped = asyncio.Event()

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await send_result(socket, [])
        frames.extend([(await receive(socket))["endpoint"], (await receive(socket))["message"]["type"]])
        stopped.set()

    async with fake_server(behave) as address, make_client(address) as client:
        await client.llm.list_loaded()  # opens the connection, so that the request is not held back
        stream, mailbox_type = _loaded(client).respond_stream("Hi"), client._context.mailbox_type

        # The mailbox is made after the last check of whether the stream was closed, and before the request is sent.
        def close_meanwhile(io: object) -> Any:
            stream._prediction.close()
            return mailbox_type(io)

        client._context.mailbox_type = close_meanwhile
        with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
            await stream.wait_for_result()
        await asyncio.wait_for(stopped.wait(), 600)
    assert frames == ["predict", "cancel"]


@pytest.mark.parametrize("moment", ["before the request is sent", "before the call is recorded"])
async def test_a_stream_that_is_cancelled_just_as_its_request_is_sent_keeps_what_arrives(
    make_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    frames: list[str] = []

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await send_result(socket, [])
        frames.extend([(await receive(socket))["endpoint"], (await receive(socket))["message"]["type"]])
        for message in (fragment("So far."), packet({**END, "stats": {"stopReason": "userStopped"}})):
            await send(socket, {**message, "channelId": 2})

    start = Operation.start

    def start_and_cancel(operation: Operation, *args: Any, **kwargs: Any) -> Any:
        if moment == "before the request is sent":
            stream.cancel()
        call = start(operation, *args, **kwargs)
        stream.cancel()
        return call

    async with fake_server(behave) as address, make_client(address) as client:
        await client.llm.list_loaded()  # opens the connection, so that the request is not held back
        stream = _loaded(client).respond_stream("Hi")
        monkeypatch.setattr(Operation, "start", start_and_cancel)
        assert await asyncio.wait_for(_read(stream), 600) == "So far."
        assert stream.result().stats.stop_reason == "userStopped"
    assert frames == ["predict", "cancel"]


# While the model loads


async def _never_load(frames: list[str], loading: asyncio.Event, socket: Socket) -> None:
    """Record the endpoint that the client calls and the message that it sends next."""
    await authenticate(socket)
    frames.append((await receive(socket))["endpoint"])
    loading.set()
    frames.append((await receive(socket))["message"]["type"])


@pytest.mark.parametrize("policy", ["get_or_load", "new_instance"])
async def test_closing_a_stream_stops_the_loading_of_its_model(make_client: Callable[..., Any], policy: str) -> None:
    frames: list[str] = []
    loading = asyncio.Event()
    behave = partial(_never_load, frames, loading)
    async with fake_server(behave) as address, make_client(address) as client:
        stream = client.llm.lazy_model("chatty", load_policy=policy).respond_stream("Hi")
        reader = asyncio.ensure_future(_read(stream))
        await asyncio.wait_for(loading.wait(), 600)  # the server has received the request
        await _wait_until_reading(stream)  # and the reader waits for progress
        await stream.aclose()
        with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
            await asyncio.wait_for(reader, 600)
    assert frames == [{"get_or_load": "getOrLoad", "new_instance": "loadModel"}[policy], "cancel"]


async def test_cancelling_a_stream_stops_the_loading_of_its_model(make_client: Callable[..., Any]) -> None:
    frames: list[str] = []
    loading = asyncio.Event()
    behave = partial(_never_load, frames, loading)
    async with fake_server(behave) as address, make_client(address) as client:
        stream = client.llm.lazy_model("chatty").respond_stream("Hi")
        reader = asyncio.ensure_future(_read(stream))
        await asyncio.wait_for(loading.wait(), 600)
        stream.cancel()
        assert await asyncio.wait_for(reader, 600) == ""
        with pytest.raises(lms.LMStudioCancelledError, match=CANCELLED):
            await stream.wait_for_result()
    assert frames == ["getOrLoad", "cancel"]


@pytest.mark.parametrize(("method", "reason"), [("cancel", CANCELLED), ("close", CLOSED)])
async def test_a_stream_that_is_stopped_once_its_model_is_loaded_sends_no_request(
    client: Any, server: Emulator, method: str, reason: str
) -> None:
    def stop(progress: float) -> None:
        if progress == 1.0:  # after the load, before the prediction is requested
            getattr(stream._prediction, method)()

    stream = client.llm.lazy_model("chatty", on_load_progress=stop).respond_stream("Hi")
    with pytest.raises(lms.LMStudioCancelledError, match=reason):
        await stream.wait_for_result()
    assert [info.identifier for info in server.loaded()] == ["chatty"]
    assert server.predictions == ()


@pytest.mark.parametrize("closed_index", [0, 1])
async def test_one_of_two_streams_that_wait_for_a_new_instance_may_be_closed(
    make_client: Callable[..., Any], closed_index: int
) -> None:
    frames: asyncio.Queue[tuple[Socket, dict[str, Any]]] = asyncio.Queue()

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        async for text in socket:
            await frames.put((socket, json.loads(text)))

    async def next_frame(kind: str) -> tuple[Socket, int]:
        socket, frame = await asyncio.wait_for(frames.get(), 600)
        assert (frame.get("endpoint") or frame["message"]["type"]) == kind
        return socket, frame["channelId"]

    async with fake_server(behave) as address, make_client(address) as client:
        handle = client.llm.lazy_model("chatty", load_policy="new_instance")
        streams = [handle.respond_stream("Hi") for _ in range(2)]
        readers: list[asyncio.Future[str]] = []
        for stream in streams:
            readers.append(asyncio.ensure_future(_read(stream)))
            await _wait_until_reading(stream)  # so that the first stream loads, and the second waits for that load
        socket, channel = await next_frame("loadModel")
        await streams[closed_index].aclose()
        with pytest.raises(lms.LMStudioCancelledError, match=CLOSED):
            await asyncio.wait_for(readers[closed_index], 600)
        if closed_index == 0:  # the other stream takes over with a load of its own
            await next_frame("cancel")
            socket, channel = await next_frame("loadModel")
        await send(socket, {"type": "channelSend", "channelId": channel, "message": LOADED})
        socket, channel = await next_frame("predict")
        await send(socket, {"type": "channelSend", "channelId": channel, "message": END})
        assert await asyncio.wait_for(readers[1 - closed_index], 600) == ""


async def test_a_stream_that_is_closed_while_its_result_is_made_has_one_outcome(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = (await client.llm.model("chatty")).respond_stream("hello")
    result_of = Prediction._result_of

    def close_meanwhile(prediction: Prediction, *args: Any) -> Any:
        closing = threading.Thread(target=prediction.close)
        closing.start()
        closing.join(600)
        return result_of(prediction, *args)

    monkeypatch.setattr(Prediction, "_result_of", close_meanwhile)
    kinds: set[str] = set()

    async def read() -> None:
        async for event in stream.events():
            kinds.add(type(event).__name__)

    with pytest.raises(lms.LMStudioCancelledError):
        await read()
    with pytest.raises(lms.LMStudioCancelledError):
        stream.result()
    assert "PredictionEnd" not in kinds
