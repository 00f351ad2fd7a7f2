"""Responding, completing and streaming: what is delivered, and what is retried."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.files.uploads import PendingHistory, PendingImage
from lmstudio_integrations.client.models.model import ModelOperation
from lmstudio_integrations.emulator import Catalog, Emulator, ModelEntry, Preset
from lmstudio_integrations.emulator.server.handlers import SERVED
from lmstudio_integrations.types.chat import WireHistory
from tests.client.both import make_client
from tests.client.fake import Socket, fake_server, receive, send_together, until_stopped, wait_until
from tests.client.prediction_frames import (
    END,
    INFO,
    fragment,
    joined,
    know_notices,
    loaded_handle,
    packet,
    responds,
    weather,
)

__all__ = ["make_client"]

CIRCULAR: list[Any] = []
CIRCULAR.append(CIRCULAR)
WEATHER: dict[str, Any] = {"type": "toolArray", "tools": [{"type": "function", "function": {"name": "weather"}}]}
PROGRESS = packet({"type": "promptProcessingProgress", "progress": 0.5})


async def _drain(stream: AsyncIterator[Any]) -> None:
    async for _item in stream:
        pass


@pytest.fixture
def _is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server not know how to continue a text."""
    old = {name: endpoint for name, endpoint in SERVED["llm"].items() if name != "completeRawText"}
    monkeypatch.setitem(SERVED, "llm", old)


# What is delivered ----------------------------------------------------------------------------------------------------


async def test_a_prediction_has_its_text_and_its_stats(model: Any) -> None:
    result = await model.respond("count", config={"temperature": 0.5})
    assert str(result) == result.content == " ".join(str(n) for n in range(200))
    assert result.stats.stop_reason == "eosFound"
    assert result.stats.predicted_tokens_count == 201
    assert result.stats.total_tokens_count == result.stats.prompt_tokens_count + 201
    assert result.model_info.identifier == "chatty"
    assert result.load_config.context_length == 4096
    assert result.prediction_config.temperature == 0.5
    assert not result.structured


async def test_the_call_that_loads_the_model_reports_the_load_time(client: Any, server: Emulator) -> None:
    model = client.llm.lazy_model("chatty")
    first, second = await model.respond("think"), await model.respond("think")
    assert first.stats.model_load_time_sec > 0
    assert second.stats.model_load_time_sec is None
    await asyncio.to_thread(server.unload, "chatty")
    assert (await model.respond("think")).stats.model_load_time_sec > 0


async def test_a_stream_yields_one_fragment_a_token_and_then_the_result(model: Any) -> None:
    stream = model.respond_stream("count")
    fragments = [fragment async for fragment in stream]
    assert len(fragments) == 200
    assert "".join(fragment.content for fragment in fragments) == stream.result().content
    assert await stream.wait_for_result() is stream.result()
    assert stream.stats.stop_reason == "eosFound"
    assert stream.model_info.model_key == "chatty"


async def test_each_fragment_may_be_read_in_a_task_of_its_own_with_pauses_between_them(model: Any) -> None:
    fragments = aiter(model.respond_stream("count"))
    for number in range(3):
        assert (await asyncio.ensure_future(anext(fragments))).content.strip() == str(number)
        await wait_until(lambda: True)  # this loop and that of the I/O thread have noticed the end of the task
    assert [fragment async for fragment in fragments][-1].content == " 199"


async def test_different_ways_of_reading_a_stream_can_be_combined(make_client: Callable[..., Any]) -> None:
    async with (
        fake_server(responds(*map(fragment, "abcdefg"), packet(END))) as address,
        make_client(address) as client,
    ):
        stream = loaded_handle(client).respond_stream("Hi")
        events, batches = stream.events(), stream.batches()
        seen = [await anext(stream), await anext(events), await anext(stream)]
        seen += [each async for batch in batches for each in batch]
    assert "".join(event.content for event in seen if isinstance(event, lms.LlmPredictionFragment)) == "abcdefg"


async def test_events_report_everything_in_order(model: Any) -> None:
    events = [event async for event in model.respond_stream("weather").events()]
    kinds = [type(event) for event in events]
    calls = [kind for kind in kinds if kind.__name__.startswith("ToolCall")]
    assert kinds[0] is lms.PromptProgress
    assert kinds[-1] is lms.PredictionEnd
    assert calls[0] is lms.ToolCallStart
    assert calls[1] is lms.ToolCallName
    assert calls[-1] is lms.ToolCallEnd
    end = next(event for event in events if isinstance(event, lms.ToolCallEnd))
    assert (end.name, end.arguments) == ("weather", {"city": "Oslo"})


async def test_callbacks_are_called_in_order(model: Any) -> None:
    chat = lms.Chat()
    progress: list[float] = []
    order: list[str] = []
    chat.add_user_message("count")
    result = await model.respond(
        chat,
        config={"max_tokens": 2},
        on_prompt_processing_progress=progress.append,
        on_first_token=lambda: order.append("first"),
        on_prediction_fragment=lambda fragment: order.append(fragment.content),
        on_message=chat.append,
    )
    assert result.stats.stop_reason == "maxPredictedTokensReached"
    assert progress[0] == 0.0
    assert progress[-1] == 1.0
    assert progress == sorted(set(progress))
    assert order == ["first", "0", " 1"]
    assert chat.messages[-1].to_dict() == {"role": "assistant", "content": [{"type": "text", "text": "0 1"}]}


async def test_a_tool_call_instead_of_structured_output_is_no_error(model: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    result = await model.respond("weather", response_format=schema, config={"raw_tools": WEATHER})
    assert [request.name for request in result.tool_call_requests] == ["weather"]
    assert (result.parsed, result.structured) == ("", False)


async def test_a_text_is_continued_without_a_template(model: Any, server: Emulator) -> None:
    assert (await model.complete("count", config={"maxTokens": 1})).content == "0"
    assert await joined(model.complete_stream("count", config={"maxTokens": 2})) == "0 1"
    assert all(record.raw for record in server.predictions)


async def test_a_preset_sets_what_the_call_does_not(make_client: Callable[..., Any]) -> None:
    brief = Preset(identifier="brief", fields={"llm.prediction.maxPredictedTokens": {"checked": True, "value": 2}})
    models = (ModelEntry(key="chatty", rules=({"then": [{"text": "one two three four"}]},)),)
    with Emulator(catalog=Catalog(models=models, presets=(brief,))) as server:
        async with make_client(server.address) as client:
            model = await client.llm.model("chatty")
            assert (await model.respond("Hi", preset="brief")).stats.predicted_tokens_count == 2
            longer = await model.respond("Hi", preset="brief", config={"maxTokens": 3})
            assert longer.stats.predicted_tokens_count == 3


async def test_a_preset_that_does_not_exist_is_named(model: Any) -> None:
    with pytest.raises(lms.LMStudioPresetNotFoundError, match="nonesuch") as caught:
        await model.respond("hello", preset="nonesuch")
    assert "the server has no presets" in str(caught.value)


REQUIRED: dict[str, Any] = {"tool_choice": {"type": "generic", "mode": "required"}}


async def _respond(model: Any, prompt: str, **parameters: Any) -> Any:
    await model.respond(prompt, config={**REQUIRED, "raw_tools": WEATHER}, **parameters)


async def _act(model: Any, prompt: str) -> Any:
    await model.act(prompt, [weather], config=REQUIRED, required_tool_fallback=False, max_prediction_rounds=2)


@pytest.mark.leaf
@pytest.mark.parametrize("call", [_respond, _act])
async def test_a_response_without_the_required_call_is_logged_once(
    model: Any, call: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    missing = "'chatty': a tool call was required, and the model responded without one (tool_choice='required'); use"
    await call(model, "weather")
    if call is _respond:  # the caller of `act` does not run the loop, and so cannot check by itself
        await call(model, "count", check_response=False)
    assert not caplog.records
    await call(model, "count")
    assert [record.getMessage().startswith(missing) for record in caplog.records] == [True]


# What is rejected -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [{"a": object()}, CIRCULAR])
async def test_a_value_without_a_json_form_is_rejected(model: Any, value: object) -> None:
    with pytest.raises(lms.LMStudioValueError, match="JSON"):
        await model.respond("hi", config={"raw": {"ext.virtualModel.customField.x": value}})
    assert (await model.respond("hi")).content, "the model is as it was"


# How it begins and ends -----------------------------------------------------------------------------------------------


async def test_a_stream_that_is_dropped_unread_or_cancelled_before_it_starts_sends_nothing(
    model: Any, server: Emulator
) -> None:
    stream = model.respond_stream("for ever")
    with pytest.raises(lms.LMStudioRuntimeError, match="no result before"):
        stream.result()
    stream = model.respond_stream("for ever")
    stream.cancel()
    assert [fragment async for fragment in stream] == []
    del stream
    assert server.predictions == ()


async def test_a_stream_may_be_started_once_before_it_is_read(model: Any, server: Emulator) -> None:
    stream = model.respond_stream("count")
    await stream.start()
    await asyncio.to_thread(server.wait_for, lambda: any(each.state == "ended" for each in server.predictions), 600)
    with pytest.raises(lms.LMStudioRuntimeError, match="no result before"):
        _ = stream.stats
    for _ in range(2):
        with pytest.raises(lms.LMStudioRuntimeError, match=r"start\(\) works once"):
            await stream.start()
        assert (await stream.wait_for_result()).content.endswith("199")
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert len(server.predictions) == 1


@pytest.mark.parametrize("begin", [anext, lambda stream: stream.start()])
async def test_dropping_a_stream_that_has_begun_stops_the_server(
    model: Any, server: Emulator, begin: Callable[[Any], Awaitable[Any]]
) -> None:
    stream = model.respond_stream("for ever")
    await begin(stream)
    await asyncio.to_thread(server.wait_for, lambda: any(each.fragments > 0 for each in server.predictions), 600)
    gc.disable()  # without the garbage collector
    try:
        del stream
        await until_stopped(server)
    finally:
        gc.enable()


@pytest.mark.slow
async def test_a_stream_outlives_the_names_of_its_client_and_its_model(server: Emulator) -> None:
    stream = lms.AsyncClient(server.address).llm.lazy_model("chatty").respond_stream("count")
    await anext(stream)
    gc.collect()
    assert (await stream.wait_for_result()).content.endswith("199")


async def test_cancelling_keeps_what_has_arrived(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    stream = model.respond_stream("for ever", config={**REQUIRED, "raw_tools": WEATHER})
    seen = 0
    async for _fragment in stream:
        seen += 1
        if seen == 3:
            stream.cancel()
    result = stream.result()
    assert result.stats.stop_reason == "userStopped"
    assert result.content.startswith("on and on")
    assert not caplog.records, "it lacks no call"


@pytest.mark.slow
@pytest.mark.parametrize("awaited", [True, False])
async def test_cancelling_an_async_stream_acts_whether_or_not_it_is_awaited(server: Emulator, awaited: bool) -> None:
    async with lms.AsyncClient(server.address) as client:
        stream = (await client.llm.model("chatty")).respond_stream("for ever")
        await anext(stream)
        cancelling = stream.cancel()
        server.wait_for(lambda: server.predictions[-1].stop_reason == "userStopped", 600)
        if awaited:
            await cancelling
            await stream.cancel()
        result = await stream.wait_for_result()
        assert result.stats.stop_reason == "userStopped"
        await stream.cancel()
        del cancelling
        gc.collect()  # a coroutine that nobody awaited would warn now, which is an error


async def test_closing_the_client_ends_its_streams(client: Any, model: Any, server: Emulator) -> None:
    iterator = aiter(model.respond_stream("for ever"))
    await anext(iterator)
    await client.aclose()
    with pytest.raises(lms.LMStudioConnectionLostError, match="client was closed"):
        await _drain(iterator)
    await until_stopped(server)


# Failures and retries -------------------------------------------------------------------------------------------------


async def test_an_error_in_a_callback_reaches_the_caller_and_stops_the_server(model: Any, server: Emulator) -> None:
    def fail(_fragment: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await model.respond("for ever", on_prediction_fragment=fail)
    await until_stopped(server)


async def test_a_stream_that_failed_gives_its_error_as_its_result(model: Any) -> None:
    stream = model.respond_stream("break")
    with pytest.raises(lms.LMStudioServerError, match="the engine gave up") as caught:
        await stream.wait_for_result()
    with pytest.raises(lms.LMStudioServerError) as again:
        stream.result()
    assert again.value is caught.value


@pytest.mark.usefixtures("_is_old")
async def test_completion_continues_after_all_warnings_of_an_old_server(model: Any) -> None:
    for _ in range(8):
        assert (await model.complete("count", config={"max_tokens": 1})).content == "0"


@pytest.mark.usefixtures("_is_old")
@pytest.mark.parametrize(
    ("method", "config"),
    [("respond_stream", {}), ("complete_stream", {}), ("respond_stream", {"logit_bias": {"a": 5}})],
)
async def test_a_started_stream_is_requested_again_in_the_old_way_or_after_its_model_was_reloaded(
    model: Any, server: Emulator, method: str, config: dict[str, Any]
) -> None:
    await asyncio.to_thread(server.unload, "chatty")
    stream = getattr(model, method)("count", config={"max_tokens": 1, **config})
    await stream.start()
    assert (await stream.wait_for_result()).content == "0"


async def test_a_stream_that_is_cancelled_as_its_model_turns_out_to_be_unloaded_ends(
    model: Any, server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(server.unload, "chatty")
    stream, explain = model.respond_stream("think"), ModelOperation.explain

    def cancel_meanwhile(self: ModelOperation, error: lms.LMStudioError) -> lms.LMStudioError:
        stream.cancel()
        return explain(self, error)

    monkeypatch.setattr(ModelOperation, "explain", cancel_meanwhile)
    assert [fragment async for fragment in stream] == []
    assert server.loaded() == []


async def test_an_error_of_on_message_does_not_repeat_the_prediction(model: Any, server: Emulator) -> None:
    messages: list[Any] = []

    def save(message: Any) -> None:
        messages.append(message)
        raise lms.LMStudioModelUnloadedError("another model was unloaded")

    with pytest.raises(lms.LMStudioModelUnloadedError, match="another model was unloaded"):
        await model.respond("think", on_message=save)
    assert (len(messages), len(server.predictions)) == (1, 1)


async def test_unloading_loads_nothing(client: Any, server: Emulator) -> None:
    with pytest.raises(lms.LMStudioModelNotFoundError):
        await client.llm.lazy_model("chatty").unload()
    await client.llm.model("other")
    await client.llm.lazy_model().unload()
    assert server.loaded() == []


# Frame by frame -------------------------------------------------------------------------------------------------------

together_or_not = pytest.mark.parametrize("together", [True, False])


@together_or_not
@pytest.mark.parametrize("received", [PROGRESS, packet({"type": "notice"})], ids=["progress", "a later packet"])
async def test_a_model_that_is_unloaded_while_it_reads_the_prompt_is_reloaded(
    monkeypatch: pytest.MonkeyPatch, received: dict[str, Any], together: bool
) -> None:
    know_notices(monkeypatch, "notice")
    unloaded, reading = packet({**END, "stats": {"stopReason": "modelUnloaded"}}), asyncio.Event()
    first = responds(received, unloaded) if together else responds(received, later=[unloaded], after=reading)

    async def behave(socket: Socket) -> None:
        await first(socket)
        assert (await receive(socket))["endpoint"] == "getOrLoad"
        send_together(socket, [{**packet({"type": "loadSuccess", "info": INFO}), "channelId": 2}])
        await receive(socket)
        send_together(socket, [{**frame, "channelId": 3} for frame in (fragment("ok"), packet(END))])

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        text = ""
        async for event in loaded_handle(client).respond_stream("Hi").events():
            text += event.content if isinstance(event, lms.LlmPredictionFragment) else ""
            reading.set()
        assert text == "ok"


@together_or_not
async def test_an_unloaded_model_whose_response_was_seen_is_not_retryable(together: bool) -> None:
    unloaded, read = packet({**END, "stats": {"stopReason": "modelUnloaded"}}), asyncio.Event()
    first = fragment("a")
    behave = responds(first, unloaded) if together else responds(first, later=[unloaded], after=read)
    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        stream = loaded_handle(client).respond_stream("Hi", on_first_token=read.set)
        with pytest.raises(lms.LMStudioModelUnloadedError) as caught:
            await joined(stream)
    assert not caught.value.retryable


async def test_a_lost_connection_after_a_part_was_read_is_not_retryable(client: Any) -> None:
    stream = client.llm.lazy_model("chatty").respond_stream("drop")
    with pytest.raises(lms.LMStudioConnectionLostError) as caught:
        await joined(stream)
    assert not caught.value.retryable
    with pytest.raises(lms.LMStudioConnectionLostError) as caught:
        await client.llm.lazy_model("chatty").respond("drop")
    assert caught.value.retryable


@together_or_not
async def test_on_message_is_called_only_with_a_valid_message(together: bool) -> None:
    failed, read = packet({**END, "stats": {"stopReason": "failed"}}), asyncio.Event()
    behave = responds(fragment("a"), failed) if together else responds(fragment("a"), later=[failed], after=read)
    messages: list[Any] = []
    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        stream = loaded_handle(client).respond_stream("Hi", on_message=messages.append)
        assert (await anext(stream)).content == "a"
        read.set()
        with pytest.raises(lms.LMStudioPredictionError, match="the generation failed"):
            await stream.wait_for_result()
        with pytest.raises(lms.LMStudioPredictionError, match="the generation failed"):
            stream.result()
    assert messages == []


@pytest.mark.leaf
async def test_an_error_of_the_handler_of_an_unreadable_tool_call_does_not_repeat_the_prediction() -> None:
    frames: list[str | bytes] = []
    failed = {"type": "toolCallGenerationFailed", "error": {"title": "Cut off"}, "rawContent": '{"a": '}

    async def behave(socket: Socket) -> None:
        await responds(packet(failed), packet(END))(socket)
        frames.extend([text async for text in socket])

    def handle(_error: Exception, _request: object) -> None:
        raise lms.LMStudioModelUnloadedError("another model was unloaded")

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        act = loaded_handle(client).act("Hi", [weather], handle_invalid_tool_request=handle, repair_tool_calls=False)
        with pytest.raises(lms.LMStudioModelUnloadedError, match="another model was unloaded"):
            await asyncio.wait_for(act, 600)
    assert frames == []


async def test_a_call_that_was_begun_fails_with_the_error_of_the_engine() -> None:
    error = {"title": "The model produced output that does not match the expected peg-native format"}

    async def behave(socket: Socket) -> None:
        begun = [
            {"type": "toolCallGenerationStart", "toolCallId": "c1"},
            {"type": "toolCallGenerationNameReceived", "name": "weather"},
            {"type": "toolCallGenerationArgumentFragmentGenerated", "content": '{"city": '},
        ]
        failed = {"type": "channelError", "channelId": 1, "error": error}
        await responds(fragment("Let me look."), *map(packet, begun), failed)(socket)
        async for _ in socket:
            pass

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        config: Any = {"rawTools": WEATHER}
        result = await loaded_handle(client).respond("Hi", config=config, repair_tool_calls=False)
        (call,) = result.tool_calls
        assert (call.name, "".join(call.fragments), call.end) == ("weather", '{"city": ', None)
        assert call.failure is not None
        assert call.failure.error == error
        assert (result.content, result.stats.stop_reason) == ("Let me look.", "unknown")


@pytest.mark.parametrize(
    ("used", "stop_reason", "text", "fails"),
    [
        (36_000, "eosFound", "", True),
        (4097, "contextLengthReached", "", True),
        (4096, "eosFound", "", False),
        (36_000, "userStopped", "", False),
        (36_000, "eosFound", "Yes.", False),  # of a server that drops messages
        (None, "eosFound", "", False),
    ],
)
@pytest.mark.parametrize("method", ["respond", "complete"])
async def test_an_empty_response_to_more_tokens_than_the_window_has_is_an_overflow(
    used: int | None, stop_reason: str, text: str, fails: bool, method: str
) -> None:
    stats = {"stopReason": stop_reason, "promptTokensCount": used, "predictedTokensCount": 1}
    end = packet({**END, "stats": stats, "modelInfo": {**INFO, "contextLength": 4096}})
    behave = responds(*([fragment(text)] if text else []), end)
    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        call = getattr(loaded_handle(client), method)("Hi")
        if not fails:
            assert (await call).content == text
            return
        with pytest.raises(lms.LMStudioContextOverflowError, match=f"the prompt has {used} tokens") as caught:
            await call
    assert (caught.value.used, caught.value.limit) == (used, 4096)
    assert "load the model with context_length=" in str(caught.value)


# Two predictions ------------------------------------------------------------------------------------------------------

IN_TWO_STEPS: dict[str, Any] = {
    "config": {"raw_tools": WEATHER},
    "response_format": {"type": "object", "properties": {}},
    "tools_first": True,
}
"""Parameters of a prediction with a tool, which a second one with the format alone replaces."""


async def test_a_second_prediction_is_a_part_of_the_same_operation(client: Any, server: Emulator) -> None:
    uploads: list[str] = []

    def encode(handles: Sequence[lms.FileHandle | str]) -> WireHistory:
        files = [handle for handle in handles if isinstance(handle, lms.FileHandle)]
        uploads.extend(handle.identifier for handle in files if handle.identifier)
        return WireHistory.of_prompt("think")

    history = PendingHistory([PendingImage(b"\x89PNG\r\n\x1a\n")], encode)
    result = await client.llm.lazy_model("chatty").respond_stream(history, **IN_TWO_STEPS).wait_for_result()
    assert (len(server.predictions), len(uploads)) == (2, 1)
    assert result.end.stats["modelLoadTimeSec"] > 0, "the first prediction loaded the model"


@together_or_not
async def test_the_progress_of_the_first_of_two_predictions_is_reported(together: bool) -> None:
    first = [PROGRESS, fragment("no object"), packet(END)]

    async def behave(socket: Socket) -> None:
        await responds(*(first if together else first[:1]))(socket)
        for frame in [] if together else first[1:]:
            send_together(socket, [frame])
        await receive(socket)
        await socket.close()

    seen: list[float] = []
    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        with pytest.raises(lms.LMStudioConnectionLostError):
            await loaded_handle(client).respond("Hi", **IN_TWO_STEPS, on_prompt_processing_progress=seen.append)
    assert seen == [0.0, 0.5]
