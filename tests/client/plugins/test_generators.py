"""Generator plugins, which respond in place of a model."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.emulator import Emulator
from tests.client.fake import fake_server
from tests.client.files.test_files import PNG
from tests.client.models.test_retries import Fickle
from tests.client.prediction_frames import fragment, joined
from tests.support.generators import GENERATOR, PLUGINS, TOOL, pier
from tests.support.pauses import replace_pauses
from tests.support.telemetry import Telemetry, attributes_of, server_of, telemetry

__all__ = ["telemetry"]

TOOLS: dict[str, Any] = {"raw_tools": {"type": "toolArray", "tools": [TOOL]}}


def choice(mode: str) -> dict[str, Any]:
    return {**TOOLS, "tool_choice": {"type": "generic", "mode": mode}}


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator(["chatty"], plugins={**PLUGINS, "acme/tools": [pier]}) as running:
        yield running


@pytest.fixture
def writer(client: Any) -> Any:
    """The generator."""
    return client.plugins.generator(GENERATOR)


async def _wait_until_stopped(server: Emulator) -> None:
    await asyncio.to_thread(server.wait_for, lambda: server.predictions[-1].stop_reason == "userStopped")


# Responses


async def _respond(writer: Any, question: str) -> Any:
    return await writer.respond(question)


async def _wait_for_result(writer: Any, question: str) -> Any:
    return await writer.respond_stream(question).wait_for_result()


async def _read(writer: Any, question: str) -> Any:
    stream = writer.respond_stream(question)
    text = await joined(stream)
    assert text == stream.result().raw_content
    return stream.result()


WAYS = [_respond, _wait_for_result, _read]
Way = Callable[[Any, str], Awaitable[Any]]


@pytest.mark.parametrize("way", WAYS)
async def test_a_response_has_its_text_and_nothing_that_a_generator_lacks(writer: Any, way: Way) -> None:
    result = await way(writer, "count")
    assert str(result) == result.content == "0 1 2 3"
    assert not hasattr(result, "stats")
    assert not hasattr(result, "model_info")
    assert repr(result) == "PredictionResult(content='0 1 2 3', stop_reason=None)"


async def test_the_whole_conversation_is_sent_and_no_model_is_loaded(
    writer: Any, client: Any, server: Emulator
) -> None:
    image = await client.files.prepare_image(PNG, "cat.png")
    chat = lms.Chat("Be brief.")
    chat.add_user_message("count", images=[image])
    await writer.respond(chat)
    (record,) = server.predictions
    system, user = record.messages
    assert (record.model, system) == (GENERATOR, {"role": "system", "content": "Be brief."})
    assert [part["type"] for part in user["content"]] == ["text", "file"]
    assert user["content"][1]["identifier"] == image.identifier
    assert not server.loads


async def test_settings_of_the_plugin_are_sent(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = client.plugins.generator(GENERATOR, plugin_config={"tone": "dry"}, working_directory="/tmp/texts")
    sent: list[Any] = []
    stream = writer.respond_stream("count")
    request = stream._prediction._requests[0]
    make = request.parameter

    def record(*arguments: Any) -> Any:
        sent.append((yield from make(*arguments)))
        return sent[-1]

    monkeypatch.setattr(request, "parameter", record)
    await stream.wait_for_result()
    assert sent[0]["pluginConfigSpecifier"] == {
        "type": "direct",
        "config": {"fields": [{"key": "tone", "value": "dry"}]},
        "workingDirectoryPath": "/tmp/texts",
    }


# Tools


async def test_a_tool_call_is_a_part_of_the_result(writer: Any) -> None:
    stream = writer.respond_stream("call it", config=TOOLS)
    events = [event async for event in stream.events()]
    (call,) = stream.result().tool_call_requests
    assert (call.id, call.name, call.arguments) == ("c1", "pier", {"destination": "island"})
    assert [type(event) for event in events if isinstance(event, lms.ToolCallStart | lms.ToolCallEnd)] == [
        lms.ToolCallStart,
        lms.ToolCallEnd,
    ]
    assert stream.result().content == "I look."


async def test_calls_in_the_text_are_found(writer: Any, caplog: pytest.LogCaptureFixture) -> None:
    result = await writer.respond("in the text", config=TOOLS, rescue_tool_calls=True)
    assert [call.name for call in result.tool_call_requests] == ["pier"]
    assert not hasattr(result, "stats")
    (message,) = caplog.messages
    assert message.startswith(f"'{GENERATOR}': read 1 tool call that the server left in the text")


async def test_tools_may_be_switched_off(writer: Any, server: Emulator) -> None:
    for mode in ("auto", "none"):
        await writer.respond("call it", config=choice(mode))
    assert [len(record.tools) for record in server.predictions] == [1, 0]


async def test_the_tool_loop_runs_functions(writer: Any, server: Emulator) -> None:
    messages: list[Any] = []
    results: list[Any] = []
    result = await writer.act("call it", [pier], on_message=messages.append, on_prediction_completed=results.append)
    assert result.rounds == 2
    assert [message.role for message in messages] == ["assistant", "tool", "assistant"]
    assert messages[-1].content[0].text == 'The tool said "pier 7, to the island".'
    assert [each.round_index for each in results] == [0, 1]
    assert not hasattr(results[0], "stats")
    assert [tool["function"]["name"] for record in server.predictions for tool in record.tools] == ["pier", "pier"]


async def test_the_last_round_of_the_tool_loop_has_no_tools(writer: Any, server: Emulator) -> None:
    await writer.act("count", [pier], max_prediction_rounds=1, config={"tool_choice": choice("auto")["tool_choice"]})
    assert server.predictions[0].tools == []


# Errors

MODEL_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "a setting": ({"config": {"temperature": 0.5}}, "temperature"),
    "several": ({"config": {"top_k_sampling": 3, "maxTokens": 5}, "preset": "p"}, "max_tokens, preset, top_k_sampling"),
    "a wire key": ({"config": {"raw": {"llm.prediction.seed": 1}}}, "raw"),
    "a check": ({"check_context": True}, "check_context"),
    "a required call": ({"config": choice("required")}, "required tool_choice"),
}


@pytest.mark.parametrize("method", ["respond", "act"])
@pytest.mark.parametrize(("given", "names"), MODEL_SETTINGS.values(), ids=MODEL_SETTINGS)
async def test_settings_of_models_are_one_error(
    writer: Any, server: Emulator, method: str, given: dict[str, Any], names: str
) -> None:
    tools = [[pier]] if method == "act" else []
    with pytest.raises(
        lms.LMStudioValueError, match=f"'{GENERATOR}' accepts a conversation and tools, but not {names};"
    ):
        await getattr(writer, method)("count", *tools, **given)
    assert not server.predictions


async def test_a_format_of_the_response_is_an_error(writer: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match="but not response_format, seed;"):
        await writer.respond("count", response_format={"type": "object"}, config={"seed": 1})


async def test_settings_that_ask_for_nothing_are_none(writer: Any) -> None:
    config = {"temperature": None, "tool_choice": choice("auto")["tool_choice"]}
    nothing = {"preset": None, "check_context": False, "response_format": None}
    assert (await writer.respond("count", config=config, **nothing)).content == "0 1 2 3"


@pytest.mark.parametrize("way", [_respond, _read])
@pytest.mark.parametrize(
    ("prompt", "text"), [("break", "the pen is dry"), ("like a model", 'No model found that fits the query "x"')]
)
async def test_an_error_of_the_plugin_has_its_text(writer: Any, way: Way, prompt: str, text: str) -> None:
    with pytest.raises(lms.LMStudioPluginError, match=text) as caught:
        await way(writer, prompt)
    assert type(caught.value) is lms.LMStudioPluginError
    assert caught.value.title == text


@pytest.mark.parametrize(("plugin", "text"), [("acme/unknown", "acme/unknown"), ("acme/tools", "not a generator")])
async def test_a_plugin_that_cannot_respond_is_an_error(client: Any, plugin: str, text: str) -> None:
    with pytest.raises(lms.LMStudioPluginError, match=text):
        await client.plugins.generator(plugin).respond("count")


@pytest.mark.parametrize(("plugin", "given"), [("", {}), (5, {}), (GENERATOR, {"prefix": "x"})])
async def test_an_invalid_argument_is_an_error_at_once(client: Any, plugin: Any, given: dict[str, Any]) -> None:
    with pytest.raises(lms.LMStudioValueError):
        client.plugins.generator(plugin, **given)


# Ends


@pytest.mark.parametrize("prompt", ["stall", "for ever"])
async def test_a_cancelled_response_says_so(writer: Any, server: Emulator, prompt: str) -> None:
    stream = writer.respond_stream(prompt)
    first = await anext(stream)
    await _cancel(stream)
    rest = await joined(stream)
    await _wait_until_stopped(server)
    result = stream.result()
    assert result.content == first.content + rest
    assert (result.stats.stop_reason, result.end.is_interrupted) == ("userStopped", True)
    assert result.stats.to_dict() == {"stopReason": "userStopped"}
    assert "cancelled" in repr(stream)


async def _cancel(stream: Any) -> None:
    stream.cancel()


async def test_a_lost_connection_is_retried_while_nothing_was_seen(
    make_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    replace_pauses(monkeypatch, pauses.append)
    server = Fickle(1, [fragment("lost")])
    async with fake_server(server) as address, make_client(address) as client:
        writer = client.plugins.generator(GENERATOR).with_retries(1)
        assert (await writer.respond("count")).content == "ok"
    assert (pauses, server.calls) == ([0.5], 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda writer: writer.with_timeouts(idle_timeout=0.05).respond("stall"),
        lambda writer: writer.respond("stall", idle_timeout=0.05),
    ],
)
async def test_timeouts_of_a_handle_and_of_a_call_apply(
    writer: Any, server: Emulator, call: Callable[[Any], Awaitable[Any]]
) -> None:
    with pytest.raises(lms.LMStudioTimeoutError) as caught:
        await call(writer)
    assert caught.value.timeout_name == "idle_timeout"
    await _wait_until_stopped(server)


# Handles


async def test_a_handle_is_that_of_a_plugin_and_has_nothing_of_models(writer: Any, client: Any) -> None:
    handle = writer
    assert repr(handle) in {f"{kind}(identifier='acme/writer')" for kind in ("PluginGenerator", "AsyncPluginGenerator")}
    assert handle.identifier == GENERATOR
    assert deepcopy(handle) is handle
    llm = client.llm.lazy_model(GENERATOR)
    llm.model.state.instance = Instance(GENERATOR)
    assert llm != handle
    of_models = ["complete", "tokenize", "get_info", "unload", "loaded_explicitly", "on_hosts"]
    assert [name for name in of_models if hasattr(handle, name)] == []


# Traces


async def test_a_response_is_a_span_without_what_a_generator_lacks(
    writer: Any, server: Emulator, telemetry: Telemetry
) -> None:
    await writer.respond("count")
    assert attributes_of(telemetry.span("chat acme/writer")) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "lm_studio",
        "gen_ai.request.model": GENERATOR,
        "gen_ai.usage.cache_read.input_tokens": 0,
        **server_of(server),
    }
    assert not telemetry.points("gen_ai.client.token.usage")
