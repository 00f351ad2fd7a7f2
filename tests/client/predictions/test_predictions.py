"""Responding, completing, streaming, cancelling; the same bodies for both clients."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry, Preset
from lmstudio_integrations.emulator.models.catalog import Catalog
from lmstudio_integrations.emulator.server.handlers import SERVED
from tests.client.both import make_client
from tests.client.fake import wait_until

__all__ = ["make_client"]

CIRCULAR: list[Any] = []
CIRCULAR.append(CIRCULAR)


async def _stopped(server: Emulator) -> None:
    """Wait, without blocking this loop, until the server has stopped the last generation."""
    await asyncio.to_thread(server.wait_for, lambda: server.predictions[-1].stop_reason == "userStopped")


async def _drain(stream: AsyncIterator[Any]) -> None:
    async for _item in stream:
        pass


async def test_a_prediction_has_its_text_and_its_stats(model: Any) -> None:
    result = await model.respond("count")
    assert str(result) == result.content == " ".join(str(n) for n in range(200))
    assert result.stats.stop_reason == "eosFound"
    assert result.stats.predicted_tokens_count == 201
    assert result.stats.total_tokens_count == result.stats.prompt_tokens_count + 201
    assert result.model_info.identifier == "chatty"
    assert result.load_config.context_length == 4096
    assert not result.structured


@pytest.mark.parametrize("policy", ["get_or_load", "explicit", "new_instance"])
async def test_the_call_that_loads_the_model_reports_the_load_time(client: Any, policy: str) -> None:
    model = client.llm.lazy_model("chatty", load_policy=policy)
    first, second = await model.respond("think"), await model.respond("think")
    assert first.stats.model_load_time_sec > 0
    assert second.stats.model_load_time_sec is None


async def test_a_call_that_loads_an_unloaded_model_again_reports_the_load_time(client: Any, server: Emulator) -> None:
    model = await client.llm.model("chatty")
    await asyncio.to_thread(server.unload, "chatty")
    assert (await model.respond("think")).stats.model_load_time_sec > 0


async def test_a_stream_yields_one_fragment_a_token_and_then_the_result(model: Any) -> None:
    stream = model.respond_stream("count")
    fragments = [fragment async for fragment in stream]
    assert len(fragments) == 200
    assert "".join(fragment.content for fragment in fragments) == stream.result().content
    assert stream.stats.stop_reason == "eosFound"
    assert stream.model_info.model_key == "chatty"


async def test_each_fragment_may_be_read_in_a_task_of_its_own_with_pauses_between_them(model: Any) -> None:
    fragments = aiter(model.respond_stream("count"))
    for number in range(3):
        assert (await asyncio.ensure_future(anext(fragments))).content.strip() == str(number)
        await wait_until(lambda: True)  # this loop and that of the I/O thread have noticed the end of the task
    assert [fragment async for fragment in fragments][-1].content == " 199"


async def test_a_tool_call_instead_of_structured_output_is_no_error(client: Any) -> None:
    tool = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    config = {"raw_tools": {"type": "toolArray", "tools": [{"type": "function", "function": tool}]}}
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    model = await client.llm.model("chatty")
    result = await model.respond("weather", response_format=schema, config=config)
    assert [request.name for request in result.tool_call_requests] == ["weather"]
    assert (result.parsed, result.structured) == ("", False)


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


async def test_settings_of_a_call_reach_the_model(model: Any) -> None:
    result = await model.respond("count", config={"maxTokens": 3, "temperature": 0.5})
    assert result.stats.stop_reason == "maxPredictedTokensReached"
    assert result.content == "0 1 2"
    assert result.prediction_config.max_tokens == 3
    assert result.prediction_config.temperature == 0.5


async def test_reasoning_is_kept_apart_from_the_content(model: Any) -> None:
    result = await model.respond("think")
    assert result.content.strip() == "Done."
    assert result.reasoning_content.strip() == "Let me see."


async def test_callbacks_are_called_in_order(model: Any) -> None:
    chat = lms.Chat()
    progress: list[float] = []
    order: list[str] = []
    chat.add_user_message("count")
    await model.respond(
        chat,
        config={"max_tokens": 2},
        on_prompt_processing_progress=progress.append,
        on_first_token=lambda: order.append("first"),
        on_prediction_fragment=lambda fragment: order.append(fragment.content),
        on_message=chat.append,
    )
    assert progress[0] == 0.0
    assert progress[-1] == 1.0
    assert progress == sorted(set(progress))
    assert order == ["first", "0", " 1"]
    assert chat.messages[-1].to_dict() == {"role": "assistant", "content": [{"type": "text", "text": "0 1"}]}


async def test_an_error_in_a_callback_reaches_the_caller_and_stops_the_server(model: Any, server: Emulator) -> None:
    def fail(_fragment: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await model.respond("for ever", on_prediction_fragment=fail)
    await _stopped(server)


async def test_a_text_is_continued_without_a_template(model: Any, server: Emulator) -> None:
    assert (await model.complete("count", config={"maxTokens": 1})).content == "0"
    assert [fragment.content async for fragment in model.complete_stream("count", config={"maxTokens": 2})] == [
        "0",
        " 1",
    ]
    assert all(record.raw for record in server.predictions)


async def test_cancelling_keeps_what_has_arrived(model: Any) -> None:
    stream = model.respond_stream("for ever")
    seen = 0
    async for _fragment in stream:
        seen += 1
        if seen == 3:
            stream.cancel()
    result = stream.result()
    assert result.stats.stop_reason == "userStopped"
    assert result.content.startswith("on and on")


async def test_a_stream_that_is_dropped_unread_never_starts(model: Any, server: Emulator) -> None:
    stream = model.respond_stream("for ever")
    with pytest.raises(lms.LMStudioRuntimeError, match="no result before"):
        stream.result()
    del stream
    assert server.predictions == ()


async def test_a_stream_that_is_cancelled_before_it_starts_yields_nothing(model: Any, server: Emulator) -> None:
    stream = model.respond_stream("for ever")
    stream.cancel()
    assert [fragment async for fragment in stream] == []
    assert server.predictions == ()


@pytest.mark.parametrize("begin", [anext, lambda stream: stream.start()])
async def test_dropping_a_stream_that_has_begun_stops_the_server(
    model: Any, server: Emulator, begin: Callable[[Any], Awaitable[Any]]
) -> None:
    stream = model.respond_stream("for ever")
    await begin(stream)
    await asyncio.to_thread(server.wait_for, lambda: any(each.fragments > 0 for each in server.predictions))
    gc.disable()  # without the garbage collector
    try:
        del stream
        await _stopped(server)
    finally:
        gc.enable()


async def test_a_stream_may_be_started_once_before_it_is_read(model: Any, server: Emulator) -> None:
    stream = model.respond_stream("count")
    await stream.start()
    await asyncio.to_thread(server.wait_for, lambda: any(each.state == "ended" for each in server.predictions))
    with pytest.raises(lms.LMStudioRuntimeError, match="no result before"):
        _ = stream.stats
    for _ in range(2):
        with pytest.raises(lms.LMStudioRuntimeError, match=r"start\(\) works once"):
            await stream.start()
        assert (await stream.wait_for_result()).content.endswith("199")
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert len(server.predictions) == 1


async def test_waiting_for_the_result_reads_the_rest(model: Any) -> None:
    stream = model.respond_stream("count")
    result = await stream.wait_for_result()
    assert result is stream.result()
    assert result.content.endswith("199")


async def test_closing_the_client_ends_its_streams(client: Any, model: Any, server: Emulator) -> None:
    stream = model.respond_stream("for ever")
    iterator = aiter(stream)
    await anext(iterator)
    await client.aclose()
    with pytest.raises(lms.LMStudioConnectionLostError, match="client was closed"):
        await _drain(iterator)
    await _stopped(server)


async def test_streams_run_side_by_side_on_one_socket(model: Any, server: Emulator) -> None:
    first, second = aiter(model.respond_stream("count")), aiter(model.respond_stream("count"))
    seen = [await anext(first), await anext(second)]
    assert [record.state for record in server.predictions].count("ended") <= 2
    rest = [[fragment async for fragment in stream] for stream in (first, second)]
    assert [len(each) for each in rest] == [199, 199]
    assert seen[0].content == seen[1].content == "0"
    assert len([each for each in server.connections if each.namespace == "llm"]) == 1


async def test_a_failure_in_the_middle_raises_with_the_servers_words(model: Any) -> None:
    with pytest.raises(lms.LMStudioServerError, match="the engine gave up"):
        await model.respond("break")


async def test_a_preset_that_does_not_exist_is_named(model: Any) -> None:
    with pytest.raises(lms.LMStudioPresetNotFoundError, match="nonesuch"):
        await model.respond("hello", preset="nonesuch")


async def test_a_preset_sets_what_the_call_does_not(make_client: Callable[..., Any]) -> None:
    brief = Preset(identifier="brief", fields={"llm.prediction.maxPredictedTokens": {"checked": True, "value": 2}})
    models = (ModelEntry(key="chatty", rules=({"then": [{"text": "one two three four"}]},)),)
    with Emulator(catalog=Catalog(models=models, presets=(brief,))) as server:
        async with make_client(server.address) as client:
            model = await client.llm.model("chatty")
            assert (await model.respond("Hi", preset="brief")).stats.predicted_tokens_count == 2
            longer = await model.respond("Hi", preset="brief", config={"maxTokens": 3})
            assert longer.stats.predicted_tokens_count == 3


@pytest.mark.parametrize("prompt", ["", "  \n", {"messages": []}, [], lms.Chat(), lms.Chat("")])
async def test_an_empty_prompt_is_rejected_before_sending(model: Any, prompt: Any, server: Emulator) -> None:
    with pytest.raises(lms.LMStudioValueError, match="empty"):
        await model.respond(prompt)
    assert server.predictions == ()


async def test_an_unknown_setting_and_an_unknown_argument_are_rejected(model: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match="did you mean 'max_tokens'"):
        await model.respond("hello", config={"maxToken": 1})
    with pytest.raises(lms.LMStudioValueError, match="did you mean 'config'"):
        await model.respond("hello", confg={})


@pytest.mark.parametrize("value", [object(), {"a": object()}, CIRCULAR])
async def test_a_value_without_a_json_form_is_rejected(model: Any, value: object) -> None:
    with pytest.raises(lms.LMStudioValueError, match="JSON"):
        await model.respond("hi", config={"raw": {"ext.virtualModel.customField.x": value}})
    assert (await model.respond("hi")).content, "the model is as it was"


async def test_cancelling_a_task_stops_the_server(server: Emulator) -> None:
    async with lms.AsyncClient(server.address) as client:
        model = await client.llm.model("chatty")
        task = asyncio.create_task(model.respond("for ever"))
        await asyncio.to_thread(server.wait_for, lambda: any(each.fragments > 5 for each in server.predictions))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _stopped(server)


async def test_completion_continues_after_all_warnings_of_an_old_server(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {name: endpoint for name, endpoint in SERVED["llm"].items() if name != "completeRawText"}
    monkeypatch.setitem(SERVED, "llm", old)
    model = await client.llm.model("chatty")
    for _ in range(8):
        assert (await model.complete("count", config={"max_tokens": 1}, timeout=5.0)).content == "0"


async def test_a_started_stream_is_requested_again_in_the_old_way_or_after_its_model_was_reloaded(
    client: Any, server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {name: endpoint for name, endpoint in SERVED["llm"].items() if name != "completeRawText"}
    monkeypatch.setitem(SERVED, "llm", old)
    model = await client.llm.model("chatty")
    server.unload("chatty")
    for make in (model.respond_stream, model.complete_stream):
        stream = make("count", config={"max_tokens": 1})
        await stream.start()
        assert (await stream.wait_for_result()).content == "0"


@pytest.mark.slow
@pytest.mark.parametrize("awaited", [True, False])
async def test_cancelling_an_async_stream_acts_whether_or_not_it_is_awaited(server: Emulator, awaited: bool) -> None:
    async with lms.AsyncClient(server.address) as client:
        stream = (await client.llm.model("chatty")).respond_stream("for ever")
        await anext(stream)
        cancelling = stream.cancel()
        server.wait_for(lambda: server.predictions[-1].stop_reason == "userStopped")
        if awaited:
            await cancelling
            await stream.cancel()
        result = await stream.wait_for_result()
        assert result.stats.stop_reason == "userStopped"
        await stream.cancel()
        del cancelling
        gc.collect()  # a coroutine that nobody awaited would warn now, which is an error


REQUIRED: dict[str, Any] = {
    "raw_tools": {"type": "toolArray", "tools": [{"type": "function", "function": {"name": "weather"}}]},
    "tool_choice": {"type": "generic", "mode": "required"},
}


def weather(city: str) -> str:
    """Report the weather."""
    return f"It rains in {city}."


async def _respond(model: Any, prompt: str, **parameters: Any) -> Any:
    await model.respond(prompt, config=REQUIRED, **parameters)


async def _stream(model: Any, prompt: str, **parameters: Any) -> Any:
    await _drain(aiter(model.respond_stream(prompt, config=REQUIRED, **parameters)))


async def _act(model: Any, prompt: str, **parameters: Any) -> Any:
    config = {"tool_choice": REQUIRED["tool_choice"]}
    await model.act(prompt, [weather], config=config, required_tool_fallback=False, **parameters)


@pytest.mark.parametrize("call", [_respond, _stream, _act])
async def test_a_response_without_the_required_call_is_logged_once(
    model: Any, call: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    missing = "'chatty': a tool call was required, and the model responded without one (tool_choice='required'); use"
    await call(model, "weather", **({"max_prediction_rounds": 2} if call is _act else {}))
    if call is not _act:  # whose caller runs the loop, and so cannot check by itself
        await call(model, "count", check_response=False)
    assert not caplog.records
    await call(model, "count", **({"max_prediction_rounds": 2} if call is _act else {}))
    assert [record.getMessage().startswith(missing) for record in caplog.records] == [True]


async def test_a_response_that_its_caller_stopped_lacks_no_call(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    stream = model.respond_stream("for ever", config=REQUIRED)
    await anext(stream)
    stream.cancel()
    assert (await stream.wait_for_result()).stats.stop_reason == "userStopped"
    assert not caplog.records
