"""Predictions: what is retried, what callbacks and readers get, and where warnings point to."""

import asyncio
import gc
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.files.images import PendingHistory
from lmstudio_integrations.client.models import attempts
from lmstudio_integrations.client.predictions import requests
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.types.chat import WireHistory
from tests.client.both import make_client
from tests.client.fake import Socket, authenticate, fake_server, receive, send, send_together
from tests.client.prediction_frames import END, INFO, fragment, joined, loaded_handle, packet

__all__ = ["make_client"]

IN_TWO_STEPS: dict[str, Any] = {
    "config": {"raw_tools": {"type": "toolArray", "tools": [{"type": "function", "function": {"name": "f"}}]}},
    "response_format": {"type": "object", "properties": {}},
    "tools_first": True,
}
"""Parameters of a prediction with a tool, which a second one with the format alone replaces."""


@pytest.mark.slow
async def test_a_stream_outlives_the_names_of_its_client_and_its_model(server: Emulator) -> None:
    stream = lms.AsyncClient(server.address).llm.lazy_model("chatty").respond_stream("count")
    await anext(stream)
    gc.collect()
    assert (await stream.wait_for_result()).content.endswith("199")


@pytest.mark.parametrize("together", [True, False])
async def test_a_model_that_is_unloaded_while_it_reads_the_prompt_is_reloaded(
    make_client: Callable[..., Any], *, together: bool
) -> None:
    progress = packet({"type": "promptProcessingProgress", "progress": 0.5})
    unloaded = packet({**END, "stats": {"stopReason": "modelUnloaded"}})
    reading = asyncio.Event()

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        if together:
            send_together(socket, [progress, unloaded])
        else:
            await send(socket, progress)
            await reading.wait()
            await send(socket, unloaded)
        assert (await receive(socket))["endpoint"] == "getOrLoad"
        await send(socket, {**packet({"type": "loadSuccess", "info": INFO}), "channelId": 2})
        await receive(socket)
        send_together(socket, [{**frame, "channelId": 3} for frame in (fragment("ok"), packet(END))])

    async with fake_server(behave) as address, make_client(address) as client:
        events = loaded_handle(client).respond_stream("Hi").events()
        text = ""
        async with asyncio.timeout(600):
            async for event in events:
                text += event.content if isinstance(event, lms.LlmPredictionFragment) else ""
                reading.set()
        assert text == "ok"


@pytest.mark.parametrize("together", [True, False])
async def test_an_unloaded_model_whose_response_was_seen_is_not_retryable(
    make_client: Callable[..., Any], *, together: bool
) -> None:
    unloaded = packet({**END, "stats": {"stopReason": "modelUnloaded"}})

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        send_together(socket, [fragment("a"), *([unloaded] if together else [])])
        await read.wait()
        send_together(socket, [] if together else [unloaded])

    read = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with fake_server(behave) as address, make_client(address) as client:
        stream = loaded_handle(client).respond_stream("Hi", on_first_token=lambda: loop.call_soon_threadsafe(read.set))
        with pytest.raises(lms.LMStudioModelUnloadedError) as caught:
            await joined(stream)
    assert not caught.value.retryable


async def test_an_error_of_on_message_does_not_repeat_the_prediction(client: Any, server: Emulator) -> None:
    messages: list[Any] = []

    def save(message: Any) -> None:
        messages.append(message)
        raise lms.LMStudioModelUnloadedError("another model was unloaded")

    model = await client.llm.model("chatty")
    with pytest.raises(lms.LMStudioModelUnloadedError, match="another model was unloaded"):
        await model.respond("think", on_message=save)
    assert (len(messages), len(server.predictions)) == (1, 1)


async def test_an_error_of_the_handler_of_an_unreadable_tool_call_does_not_repeat_the_prediction(
    make_client: Callable[..., Any],
) -> None:
    frames: list[str | bytes] = []
    failed = {"type": "toolCallGenerationFailed", "error": {"title": "Cut off"}, "rawContent": '{"a": '}

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        send_together(socket, [packet(failed), packet(END)])
        frames.extend([text async for text in socket])

    def handle(_error: Exception, _request: object) -> None:
        raise lms.LMStudioModelUnloadedError("another model was unloaded")

    def add(a: int) -> int:
        """Add."""
        return a

    async with fake_server(behave) as address, make_client(address) as client:
        act = loaded_handle(client).act("Hi", [add], handle_invalid_tool_request=handle, repair_tool_calls=False)
        with pytest.raises(lms.LMStudioModelUnloadedError, match="another model was unloaded"):
            await asyncio.wait_for(act, 600)
    assert frames == []


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
async def test_on_message_is_called_only_with_a_valid_message(make_client: Callable[..., Any], together: bool) -> None:
    failed = {**END, "stats": {"stopReason": "failed"}}

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        send_together(socket, [fragment("a"), *([packet(failed)] if together else [])])
        await read.wait()
        send_together(socket, [] if together else [packet(failed)])

    messages: list[Any] = []
    fragments: list[str] = []
    read = asyncio.Event()
    async with fake_server(behave) as address, make_client(address) as client:
        stream = loaded_handle(client).respond_stream("Hi", on_message=messages.append)
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
async def test_different_ways_of_reading_a_stream_can_be_combined(
    make_client: Callable[..., Any], rest: Callable[[Any], Any]
) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        send_together(socket, [*map(fragment, "abcdefg"), packet(END)])

    async with fake_server(behave) as address, make_client(address) as client:
        stream = loaded_handle(client).respond_stream("Hi")
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


async def test_a_started_stream_that_asks_the_instance_something_first_loads_it_again(
    client: Any, server: Emulator
) -> None:
    model = await client.llm.model("chatty")
    server.unload("chatty")
    stream = model.respond_stream("think", config={"logit_bias": {"word": 5}})
    await stream.start()
    assert (await stream.wait_for_result()).content == "Done."


async def test_a_stream_that_is_cancelled_as_its_model_turns_out_to_be_unloaded_ends(
    client: Any, server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = await client.llm.model("chatty")
    server.unload("chatty")
    stream = model.respond_stream("think")
    explain = attempts.Attempts.explain

    def cancel_meanwhile(self: attempts.Attempts, error: lms.LMStudioError) -> lms.LMStudioError:
        stream.cancel()
        return explain(self, error)

    monkeypatch.setattr(attempts.Attempts, "explain", cancel_meanwhile)
    assert [fragment async for fragment in stream] == []
    assert server.loaded() == []


async def test_a_second_prediction_is_a_part_of_the_same_operation(
    client: Any, server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads: list[int] = []

    def upload(operation: Any, images: Any, **_: Any) -> Any:
        yield from ()
        uploads.append(len(images))
        return []

    monkeypatch.setattr(requests, "prepare_images", upload)
    history = PendingHistory([b"image"], lambda _handles: WireHistory.of_prompt("think"))
    result = await client.llm.lazy_model("chatty").respond_stream(history, **IN_TWO_STEPS).wait_for_result()
    assert (len(server.predictions), uploads) == (2, [1])
    assert result.end.stats["modelLoadTimeSec"] > 0, "the first prediction loaded the model"


@pytest.mark.parametrize("together", [True, False])
async def test_the_progress_of_the_first_of_two_predictions_is_reported(
    make_client: Callable[..., Any], together: bool
) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        progress = packet({"type": "promptProcessingProgress", "progress": 0.5})
        first = [progress, fragment("no object"), packet(END)]
        for frames in [first] if together else [[each] for each in first]:
            send_together(socket, frames)
        await receive(socket)
        await socket.close()

    seen: list[float] = []
    async with fake_server(behave) as address, make_client(address) as client:
        with pytest.raises(lms.LMStudioConnectionLostError):
            await loaded_handle(client).respond("Hi", **IN_TWO_STEPS, on_prompt_processing_progress=seen.append)
    assert seen == [0.0, 0.5]
