"""Faults of scripted models: errors, crashes, stalls, broken connections, loads that are slow or fail."""

import asyncio
from typing import Any

import pytest

from lmstudio_integrations.emulator.engines.base import EngineEvent, Fault, Finished, GenerateRequest, LoadRequest
from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.scripted import Rule, ScriptedEngine
from lmstudio_integrations.errors import (
    LMStudioInsufficientResourcesError,
    LMStudioModelCrashedError,
    LMStudioModelUnloadedError,
    LMStudioPromptTemplateError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol.errors import to_exception
from lmstudio_integrations.types.chat import Chat
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import LlmPredictionFragment, PromptProgress
from tests.emulator.engines.scripted.models import (
    FakeSleep,
    Response,
    always,
    events_of,
    generate_request,
    load,
    respond,
)


async def events_until_error(steps: list[dict[str, Any]]) -> tuple[list[EngineEvent], EngineError]:
    """The events before an error, and the error."""
    model = await load([Rule(then=steps)])
    events: list[EngineEvent] = []
    try:
        async for event in model.generate(generate_request("x")):
            events.append(event)  # noqa: PERF401 - the events before the error are the result
    except EngineError as error:
        return events, error
    raise AssertionError("nothing broke")


def seen_by_a_client(error: EngineError) -> Exception:
    """The exception that a client makes of an error."""
    fields = {"title": error.title, "cause": error.cause, "displayData": error.display_data}
    return to_exception({name: value for name, value in fields.items() if value is not None}, "Chat response")


async def test_an_error_that_comes_first_comes_before_every_packet() -> None:
    events, error = await events_until_error([{"error": "no {last}", "cause": "because", "suggestion": "try again"}])
    assert events == []
    assert (error.title, error.cause, error.suggestion) == ("no x", "because", "try again")
    assert not error.fatal


async def test_an_error_may_come_in_the_middle_or_in_place_of_the_end() -> None:
    events, error = await events_until_error([{"text": "one two"}, {"error": "generation failed"}])
    assert [event.content for event in events if isinstance(event, LlmPredictionFragment)] == ["one", " two"]
    assert not any(isinstance(event, Finished) for event in events)
    assert error.title == "generation failed"


async def test_an_error_with_a_code_has_every_member_that_the_code_needs() -> None:
    _, error = await events_until_error(
        [{"error": "No pictures", "code": "generic.engineDoesNotSupportFeature", "data": {"feature": "vision"}}]
    )
    assert error.display_data is not None
    assert error.display_data["feature"] == "vision"
    assert set(error.display_data) == {
        "code",
        "feature",
        "engineName",
        "engineType",
        "installedVersion",
        "supportedVersion",
    }
    assert isinstance(seen_by_a_client(error), LMStudioUnsupportedError)
    _, unloaded = await events_until_error([{"error": "gone", "code": "generic.specificModelUnloaded"}])
    assert isinstance(seen_by_a_client(unloaded), LMStudioModelUnloadedError)


async def test_a_crash_is_fatal_and_has_the_message_of_a_real_server() -> None:
    _, error = await events_until_error([{"text": "one"}, {"fault": "crash", "exit_code": 6}])
    assert error.fatal
    assert error.title == "The model has crashed without additional information. (Exit code: 6)"
    assert isinstance(seen_by_a_client(error), LMStudioModelCrashedError)


@pytest.mark.parametrize("kind", ["drop", "half_close", "corrupt", "unknown_packet"])
async def test_a_fault_is_injected_at_its_place_among_the_steps(kind: Any) -> None:
    got = await respond([Rule(then=[{"text": "one two"}, {"fault": kind}, {"text": " three"}])])
    assert got.content == "one two three"
    assert got.events[4] == Fault(kind)
    assert len(got.of_type(Fault)) == 1


@pytest.mark.parametrize(("packet", "place"), [(0, 0), (1, 1), (4, 4), (5, 5), (99, 5)])
async def test_a_fault_is_injected_after_a_number_of_packets(packet: int, place: int) -> None:
    got = await respond([Rule(then=[{"fault": "drop", "packet": packet}, {"text": "one two three"}])])
    assert got.events[place] == Fault("drop")
    assert len(got.events) == 2 + 3 + 1 + 1


async def test_several_faults_come_in_the_order_of_their_packets_and_waits_are_no_packets() -> None:
    steps: list[dict[str, Any]] = [
        {"wait": 1},
        {"text": "one two"},
        {"fault": "unknown_packet", "packet": 3},
        {"fault": "corrupt", "packet": 2},
    ]
    got = await respond([Rule(then=steps)])
    kinds = [event.kind if isinstance(event, Fault) else type(event) for event in got.events]
    assert kinds == [
        PromptProgress,
        PromptProgress,
        "corrupt",
        LlmPredictionFragment,
        "unknown_packet",
        LlmPredictionFragment,
        Finished,
    ]


async def test_a_crash_may_come_after_a_number_of_packets() -> None:
    events, error = await events_until_error([{"text": "one two three"}, {"fault": "crash", "packet": 3}])
    assert len(events) == 3
    assert error.fatal


async def test_a_stalled_response_sends_nothing_more_until_it_is_cancelled() -> None:
    model = await load([Rule(then=[{"text": "one"}, {"fault": "stall"}, {"text": "two"}])])
    events: list[EngineEvent] = []
    came = asyncio.Event()

    async def collect() -> None:
        async for event in model.generate(generate_request()):
            events.append(event)
            if isinstance(event, LlmPredictionFragment):
                came.set()

    task = asyncio.create_task(collect())
    await asyncio.wait_for(came.wait(), 600)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [event.content for event in events if isinstance(event, LlmPredictionFragment)] == ["one"]


LONG = "word " * 100


@pytest.mark.parametrize("policy", ["stopAtLimit", "truncateMiddle"])
async def test_a_prompt_may_be_truncated_in_silence_whatever_the_policy(policy: str) -> None:
    rules = [Rule(then=[{"text": "all " * 50}, {"fault": "truncate"}])]
    got = await respond(rules, LONG, context_length=20, context_overflow_policy=policy)
    assert (got.end.prompt_tokens, got.content, got.end.stop_reason) == (19, "all " * 50, "eosFound")
    model = await load(rules)
    raw = GenerateRequest(LlmPredictionConfig(context_overflow_policy="stopAtLimit"), prompt=LONG, context_length=20)
    assert Response(await events_of(model, raw)).end.prompt_tokens == 19


@pytest.mark.parametrize("reason", ["eosFound", "contextLengthReached"])
async def test_a_prompt_that_does_not_fit_may_get_an_empty_response(reason: str) -> None:
    rules = [Rule(then=[{"fault": "empty", "stop_reason": reason}, {"text": "never"}])]
    got = await respond(rules, LONG, context_length=20, context_overflow_policy="stopAtLimit")
    assert got.events == [Finished(reason, 0, 0)]


@pytest.mark.parametrize("fault", ["truncate", "empty"])
async def test_a_fault_at_the_limit_changes_nothing_where_the_prompt_fits(fault: str) -> None:
    rules = [Rule(then=[{"fault": fault}, {"text": "yes"}])]
    length = (await respond(always("yes"), LONG)).end.prompt_tokens + 1
    config = {"context_length": length, "context_overflow_policy": "stopAtLimit"}
    assert await respond(rules, LONG, **config) == await respond(always("yes"), LONG, **config)
    shorter = await respond(rules, LONG, **{**config, "context_length": length - 1})
    assert shorter.end.prompt_tokens < length - 1


async def test_a_template_may_reject_messages_in_predictions_and_in_texts() -> None:
    rules = [Rule({"late_system": True}, [{"text": "never"}, {"fault": "template"}]), *always("yes")]
    chat = Chat("Be brief.")
    chat.add_user_message("Why?")
    model = await load(rules)
    assert await model.apply_template(chat.to_history(), [], LlmPredictionConfig())
    assert (await respond(rules, chat)).content == "yes"
    chat.add_system_prompt("Be polite.")
    for request in (
        respond(rules, chat),
        model.apply_template(chat.to_history(), [], LlmPredictionConfig()),
    ):
        with pytest.raises(EngineError) as caught:
            await request
        assert caught.value.title.startswith("Error rendering prompt with jinja template: ")
        assert isinstance(seen_by_a_client(caught.value), LMStudioPromptTemplateError)


async def test_a_load_can_fail_for_lack_of_memory() -> None:
    rules = [Rule({"load": True}, [{"fault": "out_of_memory"}])]
    with pytest.raises(EngineError) as caught:
        await load(rules)
    assert isinstance(seen_by_a_client(caught.value), LMStudioInsufficientResourcesError)


async def test_a_load_may_fail_at_the_first_attempt_only() -> None:
    engine = ScriptedEngine(FakeSleep())
    rules = [Rule({"load": True, "round": 1}, [{"error": "not today"}])]
    with pytest.raises(EngineError, match="not today"):
        await load(rules, engine=engine)
    assert await (await load(rules, engine=engine)).tokenize("loaded at the second attempt")


async def test_a_load_may_take_its_time_before_it_crashes() -> None:
    fake_sleep, seen = FakeSleep(), list[float]()
    rules = [{"when": {"load": True}, "then": [{"wait": 30}, {"fault": "crash", "exit_code": 1}]}]
    with pytest.raises(EngineError, match=r"crashed .*Exit code: 1\)"):
        await ScriptedEngine(fake_sleep).load(LoadRequest("m", "llm", engine_settings={"rules": rules}), seen.append)
    assert fake_sleep.seconds == [30]
    assert seen == [0.0]


async def test_a_stalled_load_ends_when_it_is_cancelled() -> None:
    started = asyncio.Event()
    rules = [Rule({"load": True}, [{"fault": "stall"}])]
    request = LoadRequest("m", "llm", engine_settings={"rules": rules})
    task = asyncio.create_task(ScriptedEngine(FakeSleep()).load(request, lambda _: started.set()))
    await asyncio.wait_for(started.wait(), 600)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_rules_for_a_load_do_not_apply_to_a_prediction() -> None:
    rules = [Rule({"load": True}, [{"wait": 0}]), Rule(then=[{"text": "an answer"}])]
    assert (await respond(rules)).content == "an answer"
