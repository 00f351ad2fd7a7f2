"""The load policy `explicit`, and calls on a model that was unloaded."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._support.suggestions import MAKE_ROOM
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.client.fake import wait_until
from tests.support.gate import AT_THE_GATE, Gate

HELD_LOAD: dict[str, Any] = {"when": {"load": True}, "then": [AT_THE_GATE]}
SLOW_LOAD: dict[str, Any] = {"when": {"load": True}, "then": [{"wait": 0.3}]}
FIRST_LOAD: dict[str, Any] = {"load": True, "round": 1}
SLOWLY: dict[str, Any] = {"when": {"last": "^slowly"}, "then": [{"text": "so "}, AT_THE_GATE, {"text": "slow"}]}
MODELS = (
    ModelEntry(key="chatty", path="maker/chatty-GGUF/chatty.gguf", aliases=("buddy",), rules=(SLOWLY,)),
    ModelEntry(key="other"),
    ModelEntry(key="held", rules=(HELD_LOAD,)),
    ModelEntry(key="slow", rules=(SLOW_LOAD,)),
    ModelEntry(key="failing", rules=({"when": FIRST_LOAD, "then": [{"fault": "out_of_memory"}]},)),
    ModelEntry(key="broken", rules=({"when": FIRST_LOAD, "then": [AT_THE_GATE, {"error": "the weights are broken"}]},)),
    ModelEntry(key="vectors", kind="embedding", embedding_length=8, max_context_length=512),
)


@pytest.fixture
async def server(gate: Gate) -> AsyncIterator[Emulator]:
    """A server with Auto-Evict, as LM Studio has it by default."""
    with Emulator(MODELS, engines=gate.engines()) as running:
        yield running


def loads(server: Emulator) -> list[tuple[str, str, str, str]]:
    return [(load.key, load.identifier, load.mode, load.state) for load in server.loads]


# Finding or loading ---------------------------------------------------------------------------------------------------


async def test_an_explicit_load_neither_evicts_nor_is_evicted(client: Any, server: Emulator) -> None:
    other = await client.llm.model("other")
    vectors = await client.embedding.model("vectors", load_policy="explicit")
    await other.respond("Hi")
    with pytest.warns(lms.LMStudioEvictionWarning):
        await client.llm.model("chatty")
    assert len(await vectors.embed("a")) == 8
    assert loads(server) == [
        ("other", "other", "just_in_time", "evicted"),
        ("vectors", "vectors", "explicit", "loaded"),
        ("chatty", "chatty", "just_in_time", "loaded"),
    ]


@pytest.mark.parametrize("unloads", [False, True])
async def test_an_explicit_use_keeps_what_it_loads_and_nothing_that_was_loaded_before(
    client: Any, server: Emulator, unloads: bool
) -> None:
    await client.llm.model("other")
    used = await client.llm.model("other", load_policy="explicit")
    assert not used.loaded_explicitly
    if unloads:
        await used.unload()
        used = await client.llm.model("other", load_policy="explicit")
        await client.llm.model("chatty")
    else:
        says = r"load_policy='explicit', which is never evicted \(an instance that is loaded already stays as it was\)"
        with pytest.warns(lms.LMStudioEvictionWarning, match=says):
            await client.llm.model("chatty")
    assert used.loaded_explicitly is unloads
    assert ("other" in {info.identifier for info in server.loaded()}) is unloads


async def test_a_loaded_instance_is_used_whatever_it_is_called(client: Any, server: Emulator) -> None:
    server.load("chatty", identifier="mine")
    for name in ("mine", "CHATTY", "maker/chatty-GGUF/chatty.gguf", "Maker/chatty-gguf", "maker/chatty-GGUF/"):
        model = await client.llm.model(name, load_policy="explicit")
        assert (model.identifier, model.loaded_explicitly) == ("mine", False)
    assert len(server.loads) == 1
    server.load("chatty")
    assert (await client.llm.model("chatty", load_policy="explicit")).identifier == "chatty"
    with pytest.raises(lms.LMStudioModelNotFoundError):  # the publisher alone names no model
        await client.llm.model("maker", load_policy="explicit")


async def test_a_config_mismatch_fails_only_the_caller_that_requested_an_error(client: Any) -> None:
    parameters: dict[str, Any] = {"config": {"contextLength": 8192}, "load_policy": "explicit"}
    strict = client.embedding.lazy_model("vectors", **parameters, on_config_mismatch="raise")
    lenient = client.embedding.lazy_model("vectors", **parameters, on_config_mismatch="ignore")
    waiting = asyncio.create_task(strict.embed("a"))
    assert len(await lenient.embed("a")) == 8
    with pytest.raises(lms.LMStudioConfigMismatchError):
        await waiting


def is_waited_for() -> bool:
    return any("SingleFlight.wait" in repr(task) for task in asyncio.all_tasks())


async def test_a_client_that_is_closed_while_it_loads_fails_no_other(client: Any, server: Emulator, gate: Gate) -> None:
    async with lms.AsyncClient(server.address) as closing:
        first = asyncio.create_task(closing.llm.model("held", load_policy="explicit"))
        await asyncio.to_thread(gate.reached.wait, 600)
        second = asyncio.create_task(client.llm.model("held", load_policy="explicit"))
        await wait_until(is_waited_for)
    with pytest.raises(lms.LMStudioClientError):
        await first
    gate.open()
    assert (await second).identifier == "held"
    assert len(server.loaded()) == 1


async def test_two_spellings_load_one_instance(client: Any, server: Emulator) -> None:
    first = await client.llm.model("maker/chatty-GGUF/chatty.gguf", load_policy="explicit")
    second = await client.llm.model("Chatty", load_policy="explicit")
    assert first.identifier == second.identifier == "chatty"
    assert [info.identifier for info in server.loaded()] == ["chatty"]


async def test_a_name_that_no_list_has_loads_one_instance_under_that_name(client: Any, server: Emulator) -> None:
    for name in ("buddy", "buddy", "chatty"):
        assert (await client.llm.model(name, load_policy="explicit")).identifier == "buddy"
    server.unload("buddy")
    assert (await client.llm.model("buddy", load_policy="explicit")).identifier == "chatty"
    assert len(server.loads) == 2


async def test_an_unknown_model_is_an_error_with_close_matches(client: Any) -> None:
    with pytest.raises(lms.LMStudioModelNotFoundError, match="Did you mean '") as caught:
        await client.llm.model("chaty", load_policy="explicit")
    assert not isinstance(caught.value, lms.LMStudioModelUnloadedError)
    suggested = str(caught.value).partition("Did you mean '")[2].partition("'?")[0]
    assert (await client.llm.model(suggested, load_policy="explicit")).identifier == "chatty"


async def test_loads_at_the_same_time_are_one_load_and_fail_for_all_who_wait(
    client: Any, server: Emulator, gate: Gate
) -> None:
    async with lms.AsyncClient(server.address) as other:
        handles = [each.llm.lazy_model("broken", load_policy="explicit") for each in (client, other) for _ in range(4)]
        calls = [asyncio.create_task(handle.respond("Hi")) for handle in handles]
        await asyncio.to_thread(gate.reached.wait, 600)
        await wait_until(is_waited_for)
        gate.open()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all("weights are broken" in str(outcome) for outcome in outcomes)
        await asyncio.gather(*(handle.respond("Hi") for handle in handles))
    assert [load.state for load in server.loads] == ["failed", "loaded"]


@pytest.mark.slow
async def test_a_blocking_call_does_not_wait_for_a_load_of_its_own_event_loop(server: Emulator) -> None:
    with lms.Client(server.address) as blocking:
        async with lms.AsyncClient(server.address) as client:
            loading = asyncio.create_task(client.llm.model("slow", load_policy="explicit"))
            await asyncio.to_thread(server.wait_for, lambda: len(server.loads) == 1)
            assert blocking.llm.model("slow", load_policy="explicit").identifier == "slow"
            assert (await loading).identifier == "slow"
    assert len(server.loaded()) == 1


@pytest.mark.parametrize(
    ("parameters", "ttl_ms"),
    [({}, 3_600_000), ({"ttl": 90}, 90_000), ({"ttl": math.inf}, None)],
)
async def test_an_explicit_load_stays_for_an_hour_by_default(
    client: Any, server: Emulator, parameters: dict[str, Any], ttl_ms: int | None
) -> None:
    await client.llm.lazy_model("chatty", load_policy="explicit", **parameters).respond("Hi")
    assert [info.ttl_ms for info in server.loaded()] == [ttl_ms]


async def test_progress_and_mismatches_are_reported_as_with_get_or_load(client: Any) -> None:
    seen: list[float] = []
    explicit: dict[str, Any] = {"load_policy": "explicit", "on_load_progress": seen.append}
    await client.llm.model("chatty", config={"contextLength": 1000}, **explicit)
    assert seen[-1] == 1.0
    assert seen == sorted(set(seen))
    seen.clear()
    for key, settings in (("chatty", explicit), ("chatty", {"load_policy": "require_loaded"}), (None, {})):
        with pytest.warns(lms.LMStudioConfigWarning, match=r"context_length: requested 2000, actual 1000"):
            await client.llm.model(key, **settings, config={"contextLength": 2000})
        with pytest.raises(lms.LMStudioConfigMismatchError):
            await client.llm.model(key, **settings, config={"contextLength": 2000}, on_config_mismatch="raise")
    assert seen == [1.0, 1.0]


@pytest.mark.parametrize("policy", ["explicit", "get_or_load", "new_instance"])
async def test_a_context_length_above_the_models_maximum_is_reported(
    client: Any, server: Emulator, policy: Any
) -> None:
    config = {"contextLength": 8192}
    with pytest.warns(lms.LMStudioConfigWarning, match=r"requested 8192, actual 512.*maximum is 512 tokens"):
        await client.embedding.lazy_model("vectors", config=config, load_policy=policy).embed("a")
    server.unload("vectors")
    strict = client.embedding.lazy_model("vectors", config=config, load_policy=policy, on_config_mismatch="raise")
    for _ in range(2):
        with pytest.raises(lms.LMStudioConfigMismatchError):
            await strict.embed("a")
    assert len(server.loaded()) == (0 if policy == "new_instance" else 1)


@pytest.mark.parametrize("policy", ["explicit", "new_instance"])
@pytest.mark.parametrize(("actual", "advice"), [(16384, "the server has fitted it up"), (1024, "auto_fit_min_context")])
async def test_a_context_length_that_was_fitted_up_is_reported_like_one_that_was_fitted_down(
    policy: Any, actual: int, advice: str
) -> None:
    with Emulator(catalog={"model": [{"key": "chatty", "loaded_context_length": actual}]}) as server:
        async with lms.AsyncClient(server.address) as client:
            text = rf"was loaded with other settings \(context_length: requested 4096, actual {actual}\); .*{advice}"
            with pytest.warns(lms.LMStudioConfigWarning, match=text):
                await client.llm.model("chatty", config={"contextLength": 4096}, load_policy=policy)
            if policy != "new_instance":  # what another call has loaded was perhaps requested so
                with pytest.warns(lms.LMStudioConfigWarning, match="is already loaded") as caught:
                    await client.llm.model("chatty", config={"contextLength": 4096}, load_policy=policy)
                assert "fitted" not in str(caught[0].message)


async def test_listed_handles_show_what_this_program_loaded_explicitly(client: Any, server: Emulator) -> None:
    server.load("other")
    model = await client.embedding.model("vectors", load_policy="explicit")
    await client.llm.load_new_instance("chatty")
    assert model.loaded_explicitly
    explicit = {each.identifier: each.loaded_explicitly for each in await client.list_loaded_models()}
    assert explicit == {"other": False, "chatty": True, "vectors": True}


async def test_an_identifier_that_another_model_uses_is_an_error(client: Any, server: Emulator) -> None:
    server.load("chatty", identifier="vectors")
    with pytest.raises(lms.LMStudioModelLoadError, match=r"llm model 'chatty'.*client\.llm\.unload\('vectors'\)"):
        await client.embedding.model("vectors", load_policy="explicit")


# Memory ---------------------------------------------------------------------------------------------------------------


async def test_a_denied_explicit_load_falls_back_to_one_just_in_time(client: Any, server: Emulator) -> None:
    with pytest.warns(lms.LMStudioEvictionWarning, match="'failing' could not be loaded explicitly"):
        model = await client.llm.model("failing", load_policy="explicit")
    assert [load[2:] for load in loads(server)] == [("explicit", "failed"), ("just_in_time", "loaded")]
    assert await model.respond("Hi")


@pytest.mark.leaf("devices")
async def test_a_load_without_memory_names_the_policy_that_makes_room() -> None:
    with Emulator(MODELS, catalog={"memory_gib": 0.3}, auto_evict=False) as server:
        server.load("other")
        async with lms.AsyncClient(server.address) as client:
            with pytest.raises(lms.LMStudioInsufficientResourcesError, match="or unload others") as caught:
                await client.llm.model("chatty")
            assert str(caught.value).endswith(f"; {MAKE_ROOM}")  # after what always helps


# Unloaded -------------------------------------------------------------------------------------------------------------


async def test_an_explicit_model_that_was_unloaded_is_loaded_again(client: Any, server: Emulator) -> None:
    model = await client.embedding.model("vectors", load_policy="explicit", ttl=77)
    server.unload("vectors")
    assert await model.embed("a")
    assert [(load.mode, load.state) for load in server.loads] == [("explicit", "unloaded"), ("explicit", "loaded")]
    assert [info.ttl_ms for info in server.loaded()] == [77_000]


@pytest.mark.parametrize("policy", ["require_loaded", "new_instance"])
async def test_what_is_not_loaded_again_is_unloaded_not_unknown(client: Any, server: Emulator, policy: Any) -> None:
    server.load("chatty", identifier="chatty")
    model = await client.llm.model("chatty", load_policy=policy)
    server.unload(model.identifier)
    for call in (lambda: model.respond("Hi"), model.get_info):
        with pytest.raises(lms.LMStudioModelUnloadedError, match="was unloaded: its TTL expired") as caught:
            await call()
        assert "not found" not in str(caught.value).lower()
        assert not caught.value.retryable


async def test_a_handle_reports_that_it_unloaded_its_model_itself(client: Any) -> None:
    model = await client.llm.model("chatty")
    await model.unload()
    with pytest.raises(lms.LMStudioModelUnloadedError, match="this handle unloaded it"):
        await model.respond("Hi")


async def test_an_unknown_draft_model_is_not_taken_for_the_model_itself(client: Any, server: Emulator) -> None:
    model = await client.llm.model("chatty")
    with pytest.raises(lms.LMStudioError) as caught:
        await model.respond("Hi", config={"draftModel": "nowhere"})
    assert not isinstance(caught.value, lms.LMStudioModelUnloadedError)
    assert len(server.loads) == 1


async def _unloaded_while_generating(server: Emulator, gate: Gate, call: Any) -> Any:
    running = asyncio.create_task(call)
    await asyncio.to_thread(server.wait_for, lambda: any(record.fragments for record in server.predictions))
    server.unload("chatty")
    gate.open()
    return await running


def _tool(city: str) -> str:
    """Return the weather."""
    return city


@pytest.mark.leaf
@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.respond("slowly"),
        lambda model: model.act("slowly", [_tool]),
        lambda model: model.respond_stream("slowly").wait_for_result(),
    ],
    ids=["respond", "act", "stream"],
)
async def test_a_response_that_nobody_saw_is_generated_again(
    client: Any, server: Emulator, gate: Gate, call: Callable[[Any], Any]
) -> None:
    model = await client.llm.model("chatty")
    await _unloaded_while_generating(server, gate, call(model))
    assert server.predictions[0].stop_reason == "modelUnloaded"
    assert [load.state for load in server.loads] == ["unloaded", "loaded"]
    assert len(server.predictions) == 2


@pytest.mark.parametrize("callback", ["on_prediction_fragment", "on_first_token", "on_prompt_processing_progress"])
async def test_a_response_that_a_callback_saw_is_not_generated_again(
    client: Any, server: Emulator, gate: Gate, callback: str
) -> None:
    model = await client.llm.model("chatty")
    with pytest.raises(lms.LMStudioModelUnloadedError, match="model 'chatty' was unloaded") as caught:
        await _unloaded_while_generating(server, gate, model.respond("slowly", **{callback: lambda *_: None}))
    assert not caught.value.retryable
    assert len(server.predictions) == 1


async def test_a_stream_that_was_read_is_not_generated_again(client: Any, server: Emulator) -> None:
    model = await client.llm.model("chatty")
    seen: list[str] = []
    stream = model.respond_stream("slowly")

    async def read() -> None:
        async for fragment in stream:
            if not seen:
                server.unload("chatty")
            seen.append(fragment.content)

    with pytest.raises(lms.LMStudioModelUnloadedError):
        await read()
    assert "".join(seen).strip() == "so"
    with pytest.raises(lms.LMStudioModelUnloadedError):
        await stream.wait_for_result()


# Evictions ------------------------------------------------------------------------------------------------------------


async def test_one_warning_per_pair_names_both_models_and_the_remedies(client: Any, server: Emulator) -> None:
    chatty, other = client.llm.lazy_model("chatty"), client.llm.lazy_model("other")
    vectors = client.embedding.lazy_model("vectors")
    await chatty.respond("Hi")
    with pytest.warns(lms.LMStudioEvictionWarning) as caught:
        await other.respond("Hi")
    (warning,) = caught
    assert "loading 'other' evicted 'chatty'" in str(warning.message)
    assert "load_policy='explicit'" in str(warning.message)
    assert "Auto-Evict off" in str(warning.message)
    assert warning.filename == __file__
    await chatty.respond("Hi")
    with pytest.warns(lms.LMStudioEvictionWarning, match="loading 'vectors' evicted 'chatty'"):
        await vectors.embed("a")
    assert [load.state for load in server.loads] == ["evicted", "evicted", "evicted", "loaded"]


async def test_an_eviction_of_what_this_program_does_not_use_is_only_logged(
    server: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lmstudio_integrations")
    async with lms.AsyncClient(server.address) as another:
        await another.llm.model("other")
    IOThread.current().shared.clear()  # as in another process
    async with lms.AsyncClient(server.address) as client:
        await client.llm.model("chatty")
    assert "loading 'chatty' unloads 'other'" in caplog.text


async def test_reading_the_info_of_a_model_loads_it_only_on_request(client: Any, server: Emulator) -> None:
    model = await client.llm.model("chatty")
    server.unload("chatty")
    with pytest.raises(lms.LMStudioModelUnloadedError):
        await model.get_info()
    assert (await model.get_info(load=True)).identifier == "chatty"
    assert [load.state for load in server.loads] == ["unloaded", "loaded"]
