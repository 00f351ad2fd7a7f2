"""Faults of scripted models: errors, crashes, stalls, broken connections, loads that are slow or fail."""

import asyncio
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.base import (
    EngineError,
    EngineEvent,
    Fault,
    Finished,
    GenerateRequest,
    LoadRequest,
)
from lmstudio_integrations.emulator.engines.scripted import Rule, ScriptedEngine
from lmstudio_integrations.protocol.errors import to_exception
from tests.emulator.engines.scripted.models import (
    FakeSleep,
    Response,
    always,
    events_of,
    generate_request,
    load,
    respond,
)


async def events_until_error(*steps: dict[str, Any]) -> tuple[list[EngineEvent], EngineError]:
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


async def test_an_error_comes_before_every_packet_or_at_its_place() -> None:
    events, error = await events_until_error({"error": "no {last}", "cause": "because", "suggestion": "try again"})
    assert events == []
    assert (error.title, error.cause, error.suggestion, error.fatal) == ("no x", "because", "try again", False)
    events, error = await events_until_error({"text": "one two"}, {"error": "generation failed"})
    assert [event.content for event in events if isinstance(event, lms.LlmPredictionFragment)] == ["one", " two"]
    assert not any(isinstance(event, Finished) for event in events)
    assert error.title == "generation failed"


async def test_an_error_with_a_code_has_every_member_that_the_code_needs() -> None:
    code = {"code": "generic.engineDoesNotSupportFeature", "data": {"feature": "vision"}}
    _, error = await events_until_error({"error": "No pictures", **code})
    assert error.display_data is not None
    assert error.display_data["feature"] == "vision"
    versions = {"installedVersion", "supportedVersion"}
    assert set(error.display_data) == {"code", "feature", "engineName", "engineType", *versions}
    assert isinstance(seen_by_a_client(error), lms.LMStudioUnsupportedError)
    _, unloaded = await events_until_error({"error": "gone", "code": "generic.specificModelUnloaded"})
    assert isinstance(seen_by_a_client(unloaded), lms.LMStudioModelUnloadedError)


async def test_a_crash_is_fatal_and_has_the_message_of_a_real_server() -> None:
    events, error = await events_until_error({"text": "one two"}, {"fault": "crash", "exit_code": 6, "packet": 3})
    assert len(events) == 3
    assert error.fatal
    assert error.title == "The model has crashed without additional information. (Exit code: 6)"
    assert isinstance(seen_by_a_client(error), lms.LMStudioModelCrashedError)


async def test_a_fault_is_injected_at_its_place_or_after_a_number_of_packets() -> None:
    got = await respond([Rule(then=[{"text": "one two"}, {"fault": "corrupt"}, {"text": " three"}])])
    assert got.content == "one two three"
    assert got.events[4] == Fault("corrupt")
    assert len(got.of_type(Fault)) == 1
    for packet, place in ((0, 0), (4, 4), (5, 5), (99, 5)):
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
    fragment = lms.LlmPredictionFragment
    assert kinds == [lms.PromptProgress, lms.PromptProgress, "corrupt", fragment, "unknown_packet", fragment, Finished]


async def test_a_stalled_response_or_load_does_nothing_more_until_it_is_cancelled() -> None:
    model = await load([Rule(then=[{"text": "one"}, {"fault": "stall"}, {"text": "two"}])])
    events: list[EngineEvent] = []
    came, begun = asyncio.Event(), asyncio.Event()

    async def collect() -> None:
        async for event in model.generate(generate_request()):
            events.append(event)
            if isinstance(event, lms.LlmPredictionFragment):
                came.set()

    settings = {"rules": [Rule({"load": True}, [{"fault": "stall"}])]}
    loading = ScriptedEngine(FakeSleep()).load(LoadRequest("m", "llm", engine_settings=settings), lambda _: begun.set())
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(collect()), asyncio.create_task(loading)]
    await came.wait()
    await begun.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert [event.content for event in events if isinstance(event, lms.LlmPredictionFragment)] == ["one"]


LONG = "word " * 100


async def test_a_prompt_may_be_truncated_in_silence_whatever_the_policy() -> None:
    rules = [Rule(then=[{"text": "all " * 50}, {"fault": "truncate"}])]
    got = await respond(rules, LONG, context_length=20, context_overflow_policy="stopAtLimit")
    assert (got.end.prompt_tokens, got.content, got.end.stop_reason) == (19, "all " * 50, "eosFound")
    raw = GenerateRequest(
        lms.LlmPredictionConfig(context_overflow_policy="stopAtLimit"), prompt=LONG, context_length=20
    )
    assert Response(await events_of(await load(rules), raw)).end.prompt_tokens == 19


async def test_a_prompt_that_does_not_fit_may_get_an_empty_response() -> None:
    rules = [Rule(then=[{"fault": "empty", "stop_reason": "contextLengthReached"}, {"text": "never"}])]
    got = await respond(rules, LONG, context_length=20, context_overflow_policy="stopAtLimit")
    assert got.events == [Finished("contextLengthReached", 103, 0)]


@pytest.mark.parametrize(("fault", "unread"), [("truncate", 1), ("empty", 0)])
async def test_a_fault_at_the_limit_changes_nothing_where_the_prompt_fits(fault: str, unread: int) -> None:
    rules = [Rule(then=[{"fault": fault}, {"text": "yes"}])]
    length = (await respond(always("yes"), LONG)).end.prompt_tokens + 1
    config = {"context_length": length, "context_overflow_policy": "stopAtLimit"}
    assert await respond(rules, LONG, **config) == await respond(always("yes"), LONG, **config)
    shorter = await respond(rules, LONG, **{**config, "context_length": length - 1})
    assert shorter.end.prompt_tokens == length - 1 - unread


async def test_a_template_may_reject_messages_in_predictions_and_in_texts() -> None:
    rules = [Rule({"late_system": True}, [{"text": "never"}, {"fault": "template"}]), *always("yes")]
    chat = lms.Chat("Be brief.")
    chat.add_user_message("Why?")
    model = await load(rules)
    assert await model.apply_template(chat.to_history(), [], lms.LlmPredictionConfig())
    assert (await respond(rules, chat)).content == "yes"
    chat.add_system_prompt("Be polite.")
    for request in (
        respond(rules, chat),
        model.apply_template(chat.to_history(), [], lms.LlmPredictionConfig()),
    ):
        with pytest.raises(EngineError) as caught:
            await request
        assert "Jinja Exception: " in caught.value.title
        assert isinstance(seen_by_a_client(caught.value), lms.LMStudioPromptTemplateError)


async def test_a_load_may_fail_for_lack_of_memory_or_at_the_first_attempt_only() -> None:
    with pytest.raises(EngineError) as caught:
        await load([Rule({"load": True}, [{"fault": "out_of_memory"}])])
    assert isinstance(seen_by_a_client(caught.value), lms.LMStudioInsufficientResourcesError)
    engine = ScriptedEngine(FakeSleep())
    rules = [Rule({"load": True, "round": 1}, [{"error": "not today"}]), *always("loaded")]
    with pytest.raises(EngineError, match="not today"):
        await load(rules, engine=engine)
    model = await load(rules, engine=engine)
    assert Response(await events_of(model, generate_request())).content == "loaded"


async def test_an_engine_that_ends_is_fatal_and_has_the_messages_of_newer_servers() -> None:
    events, error = await events_until_error({"text": "one two"}, {"fault": "engine_exit", "packet": 3})
    assert (len(events), error.title, error.fatal) == (3, "terminated", True)
    events, error = await events_until_error({"fault": "engine_exit"})
    assert (events, error.title) == ([], "Engine protocol predict request failed: fetch failed")
    assert error.error_data == {"type": "internal_error", "code": "unknown"}
    assert isinstance(seen_by_a_client(error), lms.LMStudioEngineLostError)
    with pytest.raises(EngineError) as caught:
        await load([Rule({"load": True}, [{"fault": "engine_exit"}])])
    assert "exited before becoming healthy. exitCode=1, signal=null" in str(caught.value.cause)
    assert isinstance(seen_by_a_client(caught.value), lms.LMStudioModelLoadError)


async def test_a_load_may_take_its_time_before_it_crashes() -> None:
    fake_sleep, seen = FakeSleep(), list[float]()
    rules = [{"when": {"load": True}, "then": [{"wait": 30}, {"fault": "crash", "exit_code": 1}]}]
    with pytest.raises(EngineError, match=r"crashed .*Exit code: 1\)"):
        await ScriptedEngine(fake_sleep).load(LoadRequest("m", "llm", engine_settings={"rules": rules}), seen.append)
    assert fake_sleep.seconds == [30]
    assert seen == [0.0]
