"""Getting, loading, listing and unloading models, and what is known of them."""

import asyncio
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.concurrency.flows import arun
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.client.conftest import MODELS
from tests.client.public_calls import CALLS, ROWS, calls, made_calls


async def test_loading_reports_its_progress_from_zero_to_one(client: Any) -> None:
    seen: list[float] = []
    await client.llm.model("chatty", on_load_progress=seen.append)
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert seen == sorted(set(seen))
    again: list[float] = []
    await client.llm.model("chatty", on_progress=again.append)
    assert again == [1.0]
    again.clear()
    await client.llm.load_new_instance("chatty", on_progress=again.append)
    assert again == sorted({0.0, *again, 1.0})


async def test_the_ttl_is_sent_in_milliseconds_and_an_hour_by_default(client: Any, server: Emulator) -> None:
    await client.llm.model("chatty", ttl=90)
    await client.llm.load_new_instance("other")
    await client.embedding.load_new_instance("vectors", ttl=None)
    assert [info.ttl_ms for info in server.loaded()] == [90_000, 3_600_000, None]


async def test_settings_that_differ_from_the_loaded_ones_are_reported(client: Any) -> None:
    await client.llm.model("chatty", config={"contextLength": 1000})
    with pytest.warns(lms.LMStudioConfigWarning, match=r"context_length: requested 2000, actual 1000"):
        await client.llm.model("chatty", config={"contextLength": 2000})
    with pytest.raises(lms.LMStudioConfigMismatchError) as caught:
        await client.llm.model("chatty", config={"context_length": 2000}, on_config_mismatch="raise")
    assert caught.value.differences == {"contextLength": (2000, 1000)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await client.llm.model("chatty", config={"contextLength": 2000}, on_config_mismatch="ignore")
        await client.llm.model("chatty", config={"contextLength": 1000})


@pytest.mark.parametrize(
    "policy", ["get_or_load", "explicit", pytest.param("fit", marks=pytest.mark.leaf("planning")), "require_loaded"]
)
async def test_of_two_instances_the_one_with_the_requested_context_is_used(client: Any, policy: str) -> None:
    first = await client.llm.load_new_instance("chatty", config={"context_length": 4096})
    second = await client.llm.load_new_instance("chatty", config={"context_length": 2048})
    names = [(await each.get_info()).identifier for each in (first, second)]

    async def used(key: str, length: int, on_config_mismatch: str = "raise") -> str:
        settings = {"load_policy": policy, "on_config_mismatch": on_config_mismatch}
        model = await client.llm.model(key, config={"context_length": length}, **settings)
        await model.respond("Hello")
        return str((await model.get_info()).identifier)

    assert [await used("chatty", length) for length in (4096, 2048)] == names
    assert await used("chatty", 1024, "ignore") == names[0]
    with pytest.raises(lms.LMStudioConfigMismatchError):  # the user named this instance
        await used(names[1], 4096)


@pytest.mark.parametrize(
    ("loaded", "requested", "advised"),
    [
        ({"context_length": 1000}, {"context_length": 2000}, 2000),
        ({"context_length": 1000}, {"context_length": 1_000_000}, 32768),
        ({"context_length": 2000}, {"context_length": 1000}, None),
        ({"context_length": 32768}, {"context_length": 40000}, None),
        ({"seed": 1}, {"seed": 2}, None),
    ],
)
async def test_a_context_that_is_shorter_than_asked_names_the_maximum_then_automatic_fitting(
    client: Any, loaded: dict[str, Any], requested: dict[str, Any], advised: int | None
) -> None:
    await client.llm.model("chatty", config=loaded)
    with pytest.warns(lms.LMStudioConfigWarning) as caught:
        await client.llm.model("chatty", config=requested)
    remedy = str(caught[0].message).partition("); ")[2]
    is_too_long, limit = requested.get("context_length", 0) > 32768, "the model's maximum is 32768 tokens"
    assert remedy.startswith(limit) is (limit in remedy) is is_too_long
    advice = f"load it with auto_fit_min_context_length={advised} in place of context_length, and the server fits"
    is_advised = remedy.removeprefix(f"{limit}; ").startswith(advice)
    assert is_advised is ("auto_fit" in remedy) is (advised is not None)
    assert str(requested.get("context_length", "-")) not in remedy or not is_too_long


OFF = {"enabled": False, "bits": 4, "groupSize": 32, "quantizedStart": 1}


@pytest.mark.parametrize(
    ("actual", "same", "other", "name"),
    [
        ({}, {"seed": False}, {"seed": 5}, "seed"),
        (
            {"mlxKvCacheQuantization": OFF},
            {"mlxKvCacheQuantization": False},
            {"mlxKvCacheQuantization": {**OFF, "enabled": True}},
            "mlx_kv_cache_quantization",
        ),
        ({"raw": {"llm.load.llama.autoFit": True}}, {"autoFit": True}, {"autoFit": False}, "auto_fit"),
        # What a request only implies is no mismatch either.
        ({"autoFit": True}, {"contextLength": 4096}, {"contextLength": 4095}, "context_length"),
        (
            {"raw": {"llm.load.llama.speculativeDecoding.draftMtpSidecar": True}},
            {"speculativeDraftMtp": False},
            {"contextLength": 4095},
            "context_length",
        ),
    ],
)
async def test_a_setting_is_compared_with_what_it_means(
    client: Any, actual: dict[str, Any], same: dict[str, Any], other: dict[str, Any], name: str
) -> None:
    await client.llm.model("chatty", config=actual)
    await client.llm.model("chatty", config=same, on_config_mismatch="raise")
    with pytest.raises(lms.LMStudioConfigMismatchError, match=name):
        await client.llm.model("chatty", config=other, on_config_mismatch="raise")


async def test_clients_of_both_kinds_can_share_a_new_instance(server: Emulator) -> None:
    with lms.Client(server.address) as client:
        handle = client.llm.lazy_model("chatty", load_policy="new_instance")
        async with lms.AsyncClient(server.address) as other:
            same = other.llm._handle_for(handle._model.state)
            results = await asyncio.gather(same.respond("hello"), asyncio.to_thread(handle.respond, "hello"))
    assert results[0].content == results[1].content
    assert [info.identifier for info in server.loaded()] == ["chatty"]


async def test_a_call_that_would_wait_for_a_load_of_its_own_event_loop_is_rejected() -> None:
    stuck = {"key": "stuck", "rules": [{"when": {"load": True}, "then": [{"fault": "stall"}]}]}
    with Emulator([stuck]) as server, lms.Client(server.address) as client:
        async with lms.AsyncClient(server.address) as other:
            loading = other.llm.lazy_model("stuck", load_policy="new_instance")
            task = asyncio.create_task(loading.respond("hello"))
            await asyncio.sleep(0)
            with pytest.raises(lms.LMStudioRuntimeError, match="event loop"):
                client.llm._handle_for(loading._model.state).respond("hello")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_any_loaded_model_is_used_when_none_is_named(client: Any, server: Emulator) -> None:
    handle = client.llm.lazy_model()
    with pytest.raises(lms.LMStudioRuntimeError, match="any loaded model"):
        _ = handle.identifier
    assert "any loaded model" in repr(handle)
    assert server.connections == ()
    with pytest.raises(lms.LMStudioModelNotFoundError, match="suggestion: name a model, which is then loaded"):
        await client.llm.model()
    with pytest.raises(lms.LMStudioModelNotFoundError):
        await client.llm.model("other", load_policy="require_loaded")
    server.load("other")
    assert (await client.llm.model()).identifier == "other"
    assert (await client.llm.model("other", load_policy="require_loaded")).identifier == "other"
    await handle.respond("Hi")
    assert handle.identifier == "other"


async def test_a_model_of_the_wrong_kind_is_an_error_that_names_its_kind(client: Any) -> None:
    with pytest.raises(lms.LMStudioWrongModelKindError, match="embedding"):
        await client.llm.model("vectors")
    with pytest.raises(lms.LMStudioWrongModelKindError, match="llm"):
        await client.embedding.model("chatty")


@pytest.mark.parametrize(
    ("kind", "error", "advice"),
    [
        ("llm", {"error": "Failed to load model. Error: Model is not llm."}, 'use client.embedding.model("odd")'),
        ("embedding", {"error": "Failed to load model. Error: Model is not embedding."}, 'use client.llm.model("odd")'),
        (
            "llm",
            {
                "error": "Wrong kind",
                "code": "generic.domainMismatch",
                "data": {"path": "odd", "actualDomain": "tts", "expectedDomain": "llm"},
            },
            None,
        ),
    ],
)
async def test_only_a_model_of_the_other_kind_gets_the_advice_to_use_it_there(
    make_client: Callable[..., Any], kind: Any, error: dict[str, Any], advice: str | None
) -> None:
    rules: Any = ({"when": {"load": True}, "then": [error]},)
    with Emulator([ModelEntry(key="odd", kind=kind, rules=rules)]) as server:
        async with make_client(server.address) as client:
            with pytest.raises(lms.LMStudioWrongModelKindError) as caught:
                await getattr(client, kind).model("odd", load_policy="explicit")
    assert str(caught.value).endswith(f"suggestion: {advice}" if advice else "Wrong kind")
    assert caught.value.suggestion == advice


async def test_unloading_by_handle_and_by_identifier(client: Any, server: Emulator) -> None:
    model = await client.llm.model("chatty")
    await client.embedding.load_new_instance("vectors")
    await model.unload()
    await client.embedding.unload("vectors")
    assert server.loaded() == []
    with pytest.raises(lms.LMStudioModelNotFoundError):
        await client.llm.unload("chatty")


async def test_an_unloaded_model_is_loaded_again_with_the_same_settings(client: Any, server: Emulator) -> None:
    model = await client.llm.model("chatty", ttl=77, config={"contextLength": 999})
    server.unload("chatty")
    assert str(await model.respond("hello"))
    assert [(info.ttl_ms, info.context_length) for info in server.loaded()] == [(77_000, 999)]
    server.unload("chatty")
    assert await model.count_tokens("a b") == 2


async def test_unloading_a_new_instance_that_was_never_loaded_unloads_no_other(client: Any, server: Emulator) -> None:
    server.load("chatty")
    await client.llm.lazy_model("chatty", load_policy="new_instance").unload()
    assert [info.identifier for info in server.loaded()] == ["chatty"]


async def test_lists_show_both_kinds(client: Any, server: Emulator) -> None:
    await client.llm.model("chatty")
    await client.embedding.load_new_instance("vectors")
    assert [model.identifier for model in await client.list_loaded_models()] == ["chatty", "vectors"]
    assert [model.identifier for model in await client.list_loaded_models("embedding")] == ["vectors"]
    assert {info.model_key for info in await client.list_downloaded_models()} == {"chatty", "other", "vectors"}
    assert [info.model_key for info in await client.embedding.list_downloaded()] == ["vectors"]
    kinds = {type(model) for model in await client.list_downloaded_models()}
    assert kinds == {lms.AsyncDownloadedLlm, lms.AsyncDownloadedEmbeddingModel}
    with lms.Client(server.address) as other:
        kinds = {type(model) for model in other.list_downloaded_models()}
    assert kinds == {lms.DownloadedLlm, lms.DownloadedEmbeddingModel}


async def test_the_tokens_of_a_chat_are_compared_with_the_context_length(client: Any) -> None:
    model = await client.llm.load_new_instance("chatty", config={"contextLength": 100})
    short, long = await model.get_context_use("Hi"), await model.get_context_use("word " * 200)
    assert (short.limit, short.fits, long.fits) == (100, True, False)
    assert 0 < short.used < 100 < long.used


async def test_the_bos_token_of_a_prompt_may_be_omitted(client: Any) -> None:
    model = await client.llm.model("chatty")
    whole = await model.apply_prompt_template("Hi")
    assert await model.apply_prompt_template("Hi", {"omitBosToken": True}) in whole
    assert await model.apply_prompt_template("Hi", {"omitEosToken": True}) == whole
    with pytest.raises(lms.LMStudioValueError, match="did you mean 'omitBosToken'"):
        await model.apply_prompt_template("Hi", {"omitBosTokens": True})
    with pytest.raises(lms.LMStudioValueError, match="opts must be a dict of omit_bos_token, omit_eos_token; got 5"):
        await model.apply_prompt_template("Hi", 5)


async def test_the_server_reports_what_it_knows(client: Any) -> None:
    model = await client.llm.model("chatty", config={"contextLength": 1234})
    assert await model.get_context_length() == 1234
    assert (await model.get_load_config()).context_length == 1234
    base = await model.get_base_config()
    assert isinstance(base, lms.LlmPredictionConfig)
    assert (base.temperature, base.raw) == (0.8, None)
    assert (await client.system.get_version()).version
    state = await model.get_processing_state()
    assert (state.status, state.queued) == ("idle", 0)
    assert {each.model_key for each in await client.system.list_downloaded_models()} == {"chatty", "other", "vectors"}


@pytest.mark.leaf("devices")
async def test_the_server_estimates_a_load(client: Any) -> None:
    estimate = await client.llm.estimate_usage("chatty", config={"contextLength": 100})
    assert estimate.passes_guardrails


async def test_a_loaded_model_is_found_by_what_it_is(client: Any, server: Emulator) -> None:
    await client.llm.model("chatty")
    (info,) = server.loaded()
    instance = {"type": "instanceReference", "instanceReference": info.instance_reference}
    for reference in ("chatty", {"vision": False}, lms.ModelQuery(identifier="chatty"), instance):
        assert (await client.llm.get_model_info(reference)).identifier == "chatty"
    with pytest.raises(lms.LMStudioModelNotFoundError):
        await client.llm.get_model_info({"vision": True})
    for senseless in (5, {"type": "guess"}, "a\nb"):
        with pytest.raises(lms.LMStudioValueError, match="model"):
            await client.llm.get_model_info(senseless)


async def test_a_downloaded_model_can_be_loaded_from_its_entry(client: Any, server: Emulator) -> None:
    entry = next(each for each in await client.llm.list_downloaded() if each.model_key == "other")
    assert (entry.type, entry.vision, entry.architecture, entry.display_name) == ("llm", False, "scripted", "other")
    await entry.model(ttl=60)
    await entry.load_new_instance("second")
    assert [info.identifier for info in server.loaded()] == ["other", "second"]


def test_every_public_call_has_a_row() -> None:
    assert not calls() - made_calls(ROWS.values(), "", "model", "model")


async def test_every_call_on_a_closed_client_is_an_error_of_the_client(client: Any) -> None:
    model, embedder = await client.llm.model("chatty"), await client.embedding.model("vectors", load_policy="explicit")
    await client.aclose()
    for name, call in CALLS.items():
        with pytest.raises(lms.LMStudioClientClosedError, match="the client is closed; make a new one") as caught:
            await call(client, model, embedder)
        assert isinstance(caught.value, lms.LMStudioClientError), name
        assert isinstance(caught.value, lms.LMStudioWebsocketError), "as the official SDK has it"
        assert isinstance(caught.value, lms.LMStudioRuntimeError)


async def test_a_client_says_that_its_block_has_ended(client: Any, server: Emulator) -> None:
    async with client:
        model = await client.llm.model("chatty")
    for call in (client.list_downloaded_models, lambda: model.respond("Hi")):
        with pytest.raises(lms.LMStudioClientClosedError, match="its with block has ended; call it inside"):
            await call()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("respond", r"; a model has it: client\.llm\.model\(KEY\)\.respond$"),
        ("embed", r"; a model has it: client\.embedding\.model\(KEY\)\.embed$"),
        ("chat", r"no attribute 'chat'$"),
    ],
)
def test_a_method_of_models_that_is_called_on_the_client_is_found_there(client: Any, name: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=hint):
        getattr(client, name)


async def test_unloading_what_is_not_loaded_says_what_is(client: Any) -> None:
    with pytest.raises(lms.LMStudioModelNotFoundError) as caught:
        await client.llm.unload("nothing")
    assert "suggestion: no model of this kind is loaded" in str(caught.value)
    model = await client.llm.model("chatty")
    with pytest.raises(lms.LMStudioModelNotFoundError) as caught:
        await client.llm.unload("nothing")
    assert "suggestion: loaded are chatty" in str(caught.value)
    await model.unload()
    with pytest.raises(lms.LMStudioModelNotFoundError, match="no model of this kind is loaded"):
        await model.unload()


async def test_handles_are_equal_if_they_mean_the_same_instance(client: Any, server: Emulator) -> None:
    mine = await client.llm.load_new_instance("chatty")
    other = await client.llm.load_new_instance("chatty", "other")
    (listed,) = [each for each in await client.llm.list_loaded() if each.identifier == mine.identifier]
    async with lms.AsyncClient(server.address) as elsewhere:
        again = await elsewhere.llm.model(mine.identifier)
    assert len({mine, listed, mine.with_timeouts(idle_timeout=5), again}) == 1
    assert mine != other
    assert mine != mine.identifier


def test_an_instance_of_another_kind_or_server_is_another_one(server: Emulator) -> None:
    with Emulator(MODELS) as second, lms.Client(server.address) as here, lms.Client(second.address) as there:
        model = here.llm.load_new_instance("chatty", "a")
        assert model != there.llm.load_new_instance("chatty", "a")
        model.unload()
        assert model != here.embedding.load_new_instance("vectors", "a")


async def test_a_lazy_handle_equals_only_itself_until_it_is_used(client: Any) -> None:
    first, second = (client.llm.lazy_model("chatty") for _ in range(2))
    kept = {first}
    assert first == first.with_timeouts(idle_timeout=5) == client.llm._handle_for(first._model.state)
    assert first != second
    await first.respond("Hi")
    assert first != second
    await second.respond("Hi")
    assert kept == {second}, "the hash stays the same when the instance becomes known"


# vLLM, and what a loaded model reports --------------------------------------------------------------------------------

YAML = "max-model-len: auto\r\nmax-num-seqs: 256\r\n"


@pytest.fixture
def vllm() -> Iterator[Emulator]:
    with Emulator([ModelEntry(key="chatty", format="torch_safetensors"), ModelEntry(key="gguf")]) as server:
        yield server


async def test_an_engine_that_has_a_file_reports_it_and_what_it_has_of_it(vllm: Emulator) -> None:
    async with lms.AsyncClient(vllm.address) as client:
        config = lms.LlmLoadModelConfig(
            engine_config_file_contents=YAML, engine_cwd="/models", max_parallel_predictions=3, auto_fit=True
        )
        model = await client.llm.model("chatty", config=config)
        loaded, (slots,) = await model.get_load_config(), await arun(model._model.slots())
        assert (loaded.engine_config_file_contents, loaded.engine_cwd) == (YAML, "/models")
        assert (loaded.auto_fit, loaded.max_parallel_predictions, slots) == (None, None, None)
        assert loaded.context_length == await model.get_context_length()
        assert (await model.respond("hello")).load_config == loaded
        await client.llm.model("chatty", config=loaded, on_config_mismatch="raise")
        other = lms.LlmLoadModelConfig(engine_config_file_contents="other")
        with pytest.raises(lms.LMStudioConfigMismatchError, match=r"contents: another one.*unload it first") as caught:
            await client.llm.model("chatty", config=other, on_config_mismatch="raise")
        assert caught.value.differences == {"engineConfigFileContents": ("other", YAML)}
        assert "max-num-seqs" not in str(caught.value)
        both: Any = {"engine_config_file_contents": YAML, "context_length": 5}
        with pytest.warns(lms.LMStudioConfigWarning, match=r"actual \d+\); the engine has a configuration file"):
            await client.llm.model("chatty", config=both)
        without = config.merged(lms.LlmLoadModelConfig(engine_config_file_contents=""))
        again = await client.llm.load_new_instance("chatty", config=without)
        assert (await again.get_load_config()).max_parallel_predictions == 3
        assert await arun(again._model.slots()) == [3]


async def test_other_engines_have_no_file(vllm: Emulator) -> None:
    async with lms.AsyncClient(vllm.address) as client:
        model = await client.llm.model("gguf", config={"engine_config_file_contents": YAML, "engine_cwd": "/models"})
        loaded = await model.get_load_config()
        assert (loaded.engine_config_file_contents, loaded.engine_cwd) == (None, None)
        assert (loaded.max_parallel_predictions, await arun(model._model.slots())) == (4, [4])


@pytest.mark.parametrize("key", ["chatty", "gguf"])
async def test_the_settings_of_a_model_that_was_fitted_load_another(vllm: Emulator, key: str) -> None:
    async with lms.AsyncClient(vllm.address) as client:
        model = await client.llm.model(key, config={"auto_fit": True, "gpu": {"disabled_gpus": [1]}})
        loaded = await model.get_load_config()
        assert (loaded.auto_fit, loaded.context_length) == (True, None)
        assert loaded.gpu == lms.GpuSetting(disabled_gpus=[1])
        await client.llm.load_new_instance(key, config=loaded)
        again = vllm.loads[-1].config
        assert (again["autoFit"], again["gpu"]) == (True, {"disabledGpus": [1]})
        assert "contextLength" not in again
        await client.llm.model(key, config={"context_length": await model.get_context_length()})
