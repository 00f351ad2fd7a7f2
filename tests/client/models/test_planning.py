"""Plans of what fits into memory, and the load policy `fit`, which makes room by them."""

import asyncio
import json
import logging
import math
import pickle
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRetryMiddleware

import lmstudio_integrations as lms
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.planning import Resident, _Room, parse_item
from lmstudio_integrations.client.models.seen_memory import SeenMemory
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.engines.base import Engine
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.types.memory_plans import GIB
from tests.client.fake import context_of, wait_until
from tests.faults.actions import UNKNOWN_ENDPOINT, replace, reset, warning
from tests.faults.proxy import (
    ALWAYS,
    Action,
    Injection,
    ProxiedConnection,
    Proxy,
    ProxyThread,
    forward,
)
from tests.faults.wire_items import WireItem
from tests.support.gate import AT_THE_GATE, Gate

pytestmark = pytest.mark.leaf("devices")

TOO_LARGE = lms.LMStudioInsufficientResourcesError


# Decisions, without a server ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "room", "evicted"),
    [
        ([3, 3], 6, []),
        ([3, 3], 2, [0, 1]),
        ([1, 3, 3], 5, [1]),  # the oldest one alone is not enough, and then needless
        ([1, 2, 3], 5, [0]),
        ([2, 1, 4], 3, [2]),
        ([2, 2, 1, 1], 3, [0, 1]),
        ([1, 2, 2, 1], 3, [0, 1]),
        ([1, 2, 3], 2, [0, 2]),  # of what is needless, what was used last is spared first
        ([2, 2], -1, None),
    ],
)
def test_only_what_must_go_is_chosen_the_least_recently_used_first(
    sizes: list[int], room: int, evicted: list[int] | None
) -> None:
    candidates, needed = [resident(size) for size in sizes], 100
    # Something else takes 100 as well, and more than there is if not even that is enough.
    chosen = _Room(2 * needed + room, [needed], candidates).evictions_for(
        needed, permitted=True, refused_beside=None if room >= 0 else needed
    )
    assert (None if chosen is None else [candidates.index(each) for each in chosen]) == evicted


def resident(memory_bytes: int | None) -> Resident:
    return Resident("llm", {}, {}, memory_bytes, None)


@pytest.mark.parametrize(
    ("capacity", "staying", "candidates", "needed", "permitted", "evicted"),
    [
        (90, [60], [], 30, True, 0),
        (89, [60], [], 30, True, None),
        (90, [60], [], 30, False, None),  # the server would refuse it as things are now
        (90, [60], [1], 30, False, 1),
        (None, [60], [], 30, True, 0),
        (None, [60], [29], 30, False, None),
        (None, [60], [30], 30, False, 1),
        (None, [], [], 60, False, None),
        (None, [], [1], 60, False, 1),  # nothing else is left: only a try shows it
        (None, [], [None], 1, False, 1),
        (90, [], [], 1, True, 0),
        (10, [60], [], 30, True, None),
        (10, [30], [30], 30, True, 1),  # what is there now fits, whatever the server says
    ],
)
def test_what_was_not_refused_is_estimated(
    capacity: int | None, staying: list[int], candidates: list[Any], needed: int, permitted: bool, evicted: int | None
) -> None:
    room = _Room(capacity, staying, [resident(each) for each in candidates])
    chosen = room.evictions_for(needed, permitted=permitted, refused_beside=None)
    assert (None if chosen is None else len(chosen)) == evicted


@pytest.mark.parametrize(
    ("refused_beside", "evicted"), [(None, 0), (101, 0), (100, 1), (41, 1), (40, 2), (1, 2), (0, None)]
)
def test_what_was_refused_fits_only_beside_less(refused_beside: int | None, evicted: int | None) -> None:
    room = _Room(1000, [], [resident(40), resident(60)])
    chosen = room.evictions_for(1, permitted=True, refused_beside=refused_beside)
    assert (None if chosen is None else len(chosen)) == evicted


def test_a_refusal_counts_for_the_same_model_with_as_long_a_context_until_it_is_loaded() -> None:
    seen = SeenMemory()
    for length, beside in ((4096, 7), (4096, 5), (4096, 6), (None, 3)):
        seen.record_refusal("device", "a", length, beside)
    lengths = (None, 1024, 4096, 8192)
    assert [seen.refused_beside("device", "a", length) for length in lengths] == [3, None, 5, 5]
    assert seen.refused_beside(None, "a", 4096) is seen.refused_beside("device", "b", 4096) is None
    seen.record_load("device", "a")
    assert seen.refused_beside("device", "a", 4096) is None


@pytest.mark.parametrize(
    ("item", "name", "settings"),
    [
        ("a", "a", {}),
        ("a:4096", "a", {"context_length": 4096}),
        ("a@2", "a", {"max_parallel_predictions": 2}),
        ("a/b:4096@2", "a/b", {"context_length": 4096, "max_parallel_predictions": 2}),
        ("a@q4_k_m:8192@1", "a@q4_k_m", {"context_length": 8192, "max_parallel_predictions": 1}),
        ("a@2:4096", "a@2", {"context_length": 4096}),
        ("a:", "a:", {}),
        (("a:1", {"seed": 1}), "a:1", {"seed": 1}),
        (["a", None], "a", None),
    ],
)
def test_a_planned_model_is_a_text_or_a_pair(item: Any, name: str, settings: Any) -> None:
    assert parse_item(item) == (name, settings)


@pytest.mark.parametrize("item", ["", ("a",), ("", {}), (1, {}), {"a", "b"}])
def test_anything_else_is_rejected(item: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match=r"a planned model must be|the model (must be a string|is empty)"):
        parse_item(item)


def planned(fit: Any, **members: Any) -> lms.PlannedModel:
    known: dict[str, Any] = {
        "model_key": "a",
        "kind": "llm",
        "context_length": 4096,
        "slots": 4,
        "memory_bytes": GIB,
        "basis": "estimated",
    }
    return lms.PlannedModel(fit=fit, **known | members)


@pytest.mark.parametrize(
    ("model", "verdict"),
    [
        (planned("loaded"), "loaded"),
        (planned("loaded", requested_context_length=4096), "loaded"),
        (planned("loaded", requested_context_length=8192), "loaded; 8192 tokens were requested"),
        (planned("fits"), "fits (estimated)"),
        (planned("fits", basis="seen"), "fits (seen)"),
        (planned("fits", requested_context_length=8192), "fits (estimated); 8192 tokens were requested"),
        (planned("fits_after_eviction", evicts=("b", "c")), "fits (estimated) once b, c are unloaded"),
        (planned("too_large", basis="seen"), "does not fit (seen)"),
        (planned("too_large", largest_context_length=256), "does not fit (estimated); 256 tokens would"),
    ],
)
def test_a_verdict_says_what_it_rests_on(model: lms.PlannedModel, verdict: str) -> None:
    assert model.verdict == verdict


def test_a_plan_is_shown_as_a_table() -> None:
    plan = lms.MemoryPlan(
        host="localhost:1234",
        device="studio",
        capacity_bytes=16 * GIB,
        models=(
            planned("loaded", model_key="long-name"),
            planned("fits_after_eviction", context_length=None, memory_bytes=None, slots=1, evicts=("b",)),
        ),
        loaded=(
            lms.LoadedModel(identifier="b", model_key="b", context_length=2048, memory_bytes=GIB // 2),
            lms.LoadedModel(identifier="c", model_key="c", context_length=512, stays_because="it has requests"),
        ),
    )
    assert str(plan).splitlines() == [
        "localhost:1234 (studio): memory for models: 16.0 GiB",
        "MODEL      CONTEXT  SLOTS  EACH  MEMORY",
        "long-name  4096     4      1024  1.0 GiB  loaded",
        "a          default  1            unknown  fits (estimated) once b is unloaded",
        "",
        "LOADED NOW  CONTEXT  MEMORY",
        "b           2048     0.5 GiB  may be evicted",
        "c           512      unknown  stays: it has requests",
    ]
    assert plan.fits
    assert plan.evicts == ("b",)


# A server -------------------------------------------------------------------------------------------------------------

HELD: dict[str, Any] = {"when": {"last": "^hold"}, "then": [{"text": "so "}, AT_THE_GATE, {"text": "done"}]}


def entry(key: str, gib: float, **fields: Any) -> dict[str, Any]:
    """Return a scripted model whose context takes no memory, and whose response to `hold` waits at the gate."""
    path = f"maker/{key}-GGUF/{key}.gguf"
    rules = [*fields.pop("rules", ()), HELD]
    return {
        "key": key,
        "path": path,
        "memory_gib": gib,
        "kib_per_token": 0,
        "context_length": 4096,
        "rules": rules,
        **fields,
    }


@asynccontextmanager
async def serving(
    *models: dict[str, Any],
    memory_gib: float = 10,
    devices: Sequence[dict[str, Any]] = (),
    engines: Mapping[str, Engine] | None = None,
    faults: Sequence[Injection] = (),
) -> AsyncIterator[tuple[Emulator, Any]]:
    """Run a server with a memory for models, and a client of it; what happens between them is injected."""
    catalog = {"model": list(models), "device": list(devices), "memory_gib": memory_gib}
    with ExitStack() as stack:
        server = stack.enter_context(Emulator(catalog=catalog, engines=engines))
        address = server.address
        if faults:
            address = stack.enter_context(Proxy(stack.enter_context(ProxyThread()), address, faults)).address
        async with lms.AsyncClient(address) as client:
            yield server, client


def loaded(server: Emulator) -> list[str]:
    return [info.identifier for info in server.loaded()]


def states(server: Emulator) -> list[tuple[str, str]]:
    return [(load.key, load.state) for load in server.loads]


def seen_by(client: Any) -> SeenMemory:
    return SeenMemory.of(context_of(client))


def evictions(client: Any) -> list[tuple[str, str, bool]]:
    """Return what a client knows of its evictions."""
    return [(each.identifier, each.evicted_for, each.loaded_again) for each in seen_by(client).evictions]


async def plan_of(client: Any, item: str, **options: Any) -> lms.PlannedModel:
    (model,) = (await client.plan([item], **options)).models
    assert isinstance(model, lms.PlannedModel)
    return model


async def fit(client: Any, key: str, **options: Any) -> Any:
    return await client.llm.model(key, **{"load_policy": "fit", **options})


# Plans ----------------------------------------------------------------------------------------------------------------

LIAR = entry("liar", 11, estimate_factor=0.5)
"""It needs more memory than there is, and the server does not say it."""
SIZES = (entry("a", 4), entry("b", 6), entry("c", 7), entry("wide", 8, kib_per_token=1024))


async def test_a_plan_says_whether_models_fit() -> None:
    async with serving(*SIZES) as (server, client):
        await fit(client, "a")
        found = [await plan_of(client, item) for item in ("a", "b", "c", "wide:2048", "wide:2049", "wide")]
        plan = await client.plan(["b"])
        longest = await plan_of(client, "b:999999")
        assert (longest.context_length, longest.requested_context_length) == (32768, 999999)
        assert loaded(server) == ["a"]
        assert (plan.capacity_bytes, plan.device, plan.host) == (10 * GIB, None, server.address)
    assert [(model.fit, model.basis, model.evicts, model.largest_context_length) for model in found] == [
        ("loaded", "seen", (), None),
        ("fits", "estimated", (), None),
        ("fits_after_eviction", "estimated", ("a",), None),
        ("fits_after_eviction", "estimated", ("a",), None),
        ("too_large", "estimated", (), 2048),
        ("too_large", "estimated", (), 2048),
    ]
    assert [(model.context_length, model.memory_bytes) for model in found[2:4]] == [(None, 7 * GIB), (2048, 10 * GIB)]
    assert plan.loaded == (lms.LoadedModel(identifier="a", model_key="a", context_length=4096, memory_bytes=4 * GIB),)


async def test_models_of_a_plan_share_the_memory_and_leave_what_belongs_to_it() -> None:
    async with serving(*SIZES) as (_, client):
        await fit(client, "a")
        both = await client.plan(["b", "a"])
        three = await client.plan(["wide:1", "b:1", "a"])
        instead = await client.plan(["c", "b"])
        instances = await client.plan(["a", "a", "a"])
    assert [(model.fit, model.evicts) for model in both.models] == [("fits", ()), ("loaded", ())]
    assert both.loaded[0].stays_because == "it is part of the plan"
    assert [model.fit for model in three.models] == ["too_large", "fits", "loaded"]
    assert [(model.fit, model.evicts) for model in instead.models] == [
        ("fits_after_eviction", ("a",)),
        ("too_large", ()),
    ]
    assert (both.fits, three.fits, instead.evicts) == (True, False, ("a",))
    assert [model.fit for model in instances.models] == ["loaded", "fits", "too_large"]


async def test_each_model_of_a_plan_evicts_others() -> None:
    devices = [{"name": "studio", "memory_gib": 10}]
    async with serving(entry("x", 6), entry("y", 4), entry("p", 5), entry("q", 5), devices=devices) as (_, client):
        for device in ("local", "studio"):
            await client.llm.model("x", load_policy="explicit", device=device)
        await client.llm.model("y", load_policy="explicit", device="local")
        here = await client.plan(["p", "q"])
        there = await client.plan(["p", "q"], device="studio")
    assert [model.evicts for model in here.models] == [("x",), ("y",)]
    assert [(model.fit, model.evicts) for model in there.models] == [("fits_after_eviction", ("x",)), ("fits", ())]


async def test_each_text_of_an_embedding_model_has_the_whole_context() -> None:
    vectors = {"key": "vectors", "kind": "embedding", "memory_gib": 7}
    async with serving(entry("a", 4), vectors) as (server, client):
        await fit(client, "a")
        model = await plan_of(client, "vectors:1024")
        assert (model.slots, model.context_per_conversation, model.evicts) == (1, 1024, ("a",))
        with pytest.warns(lms.LMStudioEvictionWarning):
            await client.embedding.model("vectors", load_policy="fit")
        assert loaded(server) == ["vectors"]


async def test_a_device_does_not_say_how_much_memory_it_has() -> None:
    devices = [{"name": "studio", "identifier": "id", "memory_gib": 5, "models": ["far", "a", "b"]}]
    async with serving(*SIZES, entry("far", 3, downloaded=False), devices=devices) as (server, client):
        with pytest.raises(lms.LMStudioModelNotFoundError, match=r'^Memory plan error: .*"far"'):
            await client.plan(["far"])
        with pytest.raises(lms.LMStudioModelNotFoundError, match=r'^Memory plan error: .*"wide"'):
            await client.plan(["wide"], device="studio")
        plan = await client.plan(["far", "b"], device="studio")
        assert (plan.capacity_bytes, plan.device) == (None, "studio")
        assert [model.fit for model in plan.models] == ["fits", "too_large"]
        assert str(plan).startswith(f"{server.address} (studio): memory for models: unknown\n")
        await fit(client, "a", device="studio")
        with pytest.warns(lms.LMStudioEvictionWarning):
            await fit(client, "far", device="id")
        assert [(info.identifier, info.device_identifier) for info in server.loaded()] == [("far", "id")]


async def test_the_load_config_is_that_of_the_instance_on_the_same_machine() -> None:
    async with serving(entry("a", 1), devices=[{"name": "studio"}]) as (_, client):
        for device, slots in (("local", 2), ("studio", 7)):
            config = {"max_parallel_predictions": slots}
            await client.llm.model("a", load_policy="explicit", device=device, config=config)
        for device, slots in (("local", 2), ("studio", 7)):
            (model,) = (await client.plan(["a"], device=device)).models
            assert (model.fit, model.slots) == ("loaded", slots)


async def test_the_longest_context_that_fits_is_found_without_automatic_fitting() -> None:
    async with serving(entry("wide", 8, kib_per_token=1024)) as (_, client):
        (model,) = (await client.plan([("wide", {"auto_fit": True})])).models
        assert (model.fit, model.largest_context_length) == ("too_large", 2048)


async def test_a_plan_does_not_say_how_many_run_at_once_if_only_the_engine_knows_it() -> None:
    config = {"engine_config_file_contents": "max-num-seqs: 256"}
    async with serving({**entry("a", 1), "format": "torch_safetensors"}) as (_, client):
        for fit_ in ("fits", "loaded"):
            (model,) = (await client.plan([("a", {**config, "context_length": 2048})])).models
            assert (model.fit, model.slots, model.context_per_conversation) == (fit_, None, None)
            await client.llm.model("a", config=config)


# What was refused -----------------------------------------------------------------------------------------------------


async def test_an_estimate_that_is_too_low_counts_until_a_load_was_refused() -> None:
    async with serving(entry("a", 12, estimate_factor=0.2)) as (server, client):
        first = await plan_of(client, "a")
        with pytest.raises(TOO_LARGE, match="'a' does not fit into the memory") as caught:
            await fit(client, "a")
        then = await plan_of(client, "a")
        longer, smaller = [await plan_of(client, item) for item in ("a:4096", "a:2048")]
    assert (first.fit, first.basis) == ("fits", "estimated")
    assert (then.fit, then.basis) == ("too_large", "seen")
    assert [(each.fit, each.basis) for each in (longer, smaller)] == [("fits", "estimated")] * 2
    assert caught.value.plan.models == (then,)
    assert states(server) == [("a", "failed")]


async def test_refusals_of_other_policies_are_remembered_until_the_model_is_loaded() -> None:
    async with serving(entry("a", 8, estimate_factor=0.2), entry("b", 4)) as (server, client):
        server.load("b")
        with pytest.raises(TOO_LARGE):
            await client.llm.load_new_instance("maker/a-GGUF")
        with pytest.raises(TOO_LARGE):
            await client.llm.model("a", load_policy="explicit", config={"context_length": 1024})
        found = [await plan_of(client, item) for item in ("a:1024", "a:2048", "a", "a:512")]
        assert [(each.fit, each.basis) for each in found] == [("too_large", "seen")] * 3 + [("fits", "estimated")]
        server.unload("b")
        assert (await plan_of(client, "a")).verdict == "fits (seen)"
        await client.llm.model("a", load_policy="get_or_load")
        await client.llm.unload("a")
        server.load("b")
        assert (await plan_of(client, "a")).verdict == "fits (estimated)"


async def test_a_refusal_counts_whatever_the_model_was_called() -> None:
    """The device does not say how much memory it has, so only the refusal shows that the model is too large."""
    devices = [{"name": "studio", "memory_gib": 4}]
    async with serving(entry("large", 6, estimate_factor=0.2), devices=devices) as (server, client):
        with pytest.raises(TOO_LARGE, match="does not fit"):
            await fit(client, "maker/large-GGUF/large.gguf", device="studio")
        assert len(server.loads) == 1


async def test_a_plan_and_a_load_know_a_model_by_its_alias() -> None:
    vectors = {"key": "vectors", "kind": "embedding", "aliases": ["vec"]}
    async with serving(entry("maker/m", 4, aliases=["nick"]), vectors) as (_server, client):
        plan = await client.plan(["nick:2048", ("vec", None)])
        assert [(model.kind, model.fit) for model in plan.models] == [("llm", "fits"), ("embedding", "fits")]
        for names in (["maker/m", "maker/m"], ["maker/m", "nick"]):  # two instances, by whatever names
            assert [model.model_key for model in (await client.plan(names)).models] == names
        await fit(client, "nick")
        (model,) = (await client.plan(["nick"])).models
        assert (model.model_key, model.fit) == ("maker/m", "loaded")
        with pytest.raises(lms.LMStudioModelNotFoundError, match="download it with `lms get neither`"):
            await client.plan(["neither"])


async def test_a_plan_and_a_load_say_which_device_has_a_model() -> None:
    devices = [{"name": "Studio", "identifier": "id-1", "models": ["far"]}]
    models = entry("near", 4), entry("far", 4, downloaded=False)
    async with serving(*models, devices=devices) as (_server, client):
        for call in (client.plan(["far"]), fit(client, "far")):
            with pytest.raises(lms.LMStudioModelNotFoundError) as caught:
                await call
            assert str(caught.value).endswith("; the linked device 'Studio' has it: pass device='Studio'")
        with pytest.raises(lms.LMStudioModelNotFoundError, match="LM Studio's own machine has it: pass device='local'"):
            await client.plan(["near"], device="Studio")
        await fit(client, "far", device="Studio")


async def test_what_was_seen_is_known_by_each_name_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(entry("a", 12, estimate_factor=0.2)) as (server, client):
        announced = tmp_path / "http-server.json"
        announced.write_text(json.dumps({"port": server.port}), encoding="utf-8")
        monkeypatch.setenv("LMS_API_SERVER_INFO_PATH", str(announced))
        monkeypatch.delenv("LMSTUDIO_HOST", raising=False)
        with pytest.raises(TOO_LARGE):
            await client.llm.load_new_instance("a")
        for name in (None, f"localhost:{server.port}"):
            async with lms.AsyncClient(name) as other:
                assert (await plan_of(other, "a")).verdict.startswith("does not fit (seen)")


async def test_a_refused_load_is_not_repeated_although_the_plan_goes_on_to_permit_it() -> None:
    async def forget(connection: ProxiedConnection, item: WireItem) -> None:
        seen_by(client).record_load(None, "liar")  # as if another thread had loaded it meanwhile
        await forward(connection, item)

    faults = [Injection("estimateModelUsage request", forget, ALWAYS, skip=1)]
    async with serving(entry("liar", 12, estimate_factor=0.1), faults=faults) as (server, client):
        with pytest.raises(TOO_LARGE, match="insufficient system resources"):
            await fit(client, "liar")
        assert len(server.loads) == 1


# What the server does not say -----------------------------------------------------------------------------------------


def says(result: object) -> Action:
    return replace(lambda message: {**message, "result": result})


@pytest.mark.parametrize(
    ("endpoint", "odd", "fits", "stays"),
    [
        ("surveyHardware", {"status": "ok", "engines": 5}, "fits_after_eviction", None),
        ("estimateModelUsage", {"memory": {}, "passesGuardrails": True}, "fits", None),
        (
            "getInstanceProcessingState",
            {"status": 5},
            "too_large",
            "the server does not say whether it is idle",
        ),
    ],
)
async def test_a_server_that_does_not_say_everything_is_planned_as_well(
    endpoint: str, odd: object, fits: str, stays: str | None
) -> None:
    for fault in (
        Injection(f"{endpoint} request", warning(UNKNOWN_ENDPOINT), ALWAYS),
        Injection(f"{endpoint} first packet", says(odd), ALWAYS),
    ):
        async with serving(entry("a", 6), entry("c", 5), faults=[fault]) as (_, client):
            await fit(client, "a")
            plan = await client.plan(["c"])
        assert plan.models[0].fit == fits
        assert plan.loaded[0].stays_because == stays
        assert (plan.capacity_bytes is None) == (endpoint == "surveyHardware")
        assert (plan.models[0].memory_bytes is None) == (endpoint == "estimateModelUsage")


async def test_without_estimates_a_refusal_makes_room() -> None:
    faults = [Injection("estimateModelUsage request", warning(UNKNOWN_ENDPOINT), ALWAYS)]
    async with serving(*SIZES, faults=faults) as (server, client):
        await fit(client, "a")
        with pytest.warns(lms.LMStudioEvictionWarning):
            await fit(client, "c")
        assert states(server) == [("a", "unloaded"), ("c", "failed"), ("c", "loaded")]
        server.unload("c")
        server.load("c")
        with pytest.raises(TOO_LARGE, match=r"does not fit \(seen\)"):
            await fit(client, "a")
        assert states(server)[-1] == ("a", "failed")


@pytest.mark.parametrize(("totals", "memory"), [(["1e999"], None), (["0", "16", "8"], 16), ([], None)])
def test_a_size_that_is_none_is_left_out(totals: list[str], memory: int | None) -> None:
    engines = [
        {"name": "e", "memoryInfo": {"ramCapacity": 0, "vramCapacity": 0, "totalMemory": float(total)}}
        for total in totals
    ]
    survey = lms.HardwareSurvey.from_dict({"status": "ok", "engines": engines})
    assert (survey.memory_bytes, survey.gpus) == (memory, [])


GB = 1e9
INTEGRATED, DISCRETE = "integrated", "discrete"


def surveyed(ram: float, vram: float, total: float, *gpus: tuple[str, float], **members: Any) -> dict[str, Any]:
    listed = [
        {"name": kind, "deviceId": number, "integrationType": kind, "totalMemoryCapacityBytes": size * GB}
        for number, (kind, size) in enumerate(gpus)
    ]
    memory = {"ramCapacity": ram * GB, "vramCapacity": vram * GB, "totalMemory": total * GB}
    survey = {"gpuSurveyResult": {"result": {"code": "success", "message": ""}, "gpuInfo": listed}}
    engine = {"name": "llama.cpp", "memoryInfo": memory, "hardwareSurvey": survey, **members}
    return {"status": "ok", "engines": [engine]}


@pytest.mark.parametrize(
    ("survey", "usable"),
    [
        (surveyed(17, 8.5, 25.5, (INTEGRATED, 8.5)), 17),
        (surveyed(17, 8.5, 25.5, (INTEGRATED, 17)), 17),
        (surveyed(17, 8.5, 17, (INTEGRATED, 8.5)), 17),
        (surveyed(68, 25.5, 93.5, (DISCRETE, 25.5)), 93.5),
        (surveyed(68, 34, 102, (DISCRETE, 25.5), (INTEGRATED, 8.5)), 93.5),
        (surveyed(68, 25.5, 93.5, (DISCRETE, 25.5), (INTEGRATED, 34)), 93.5),
        (surveyed(17, 8.5, 25.5, ("Integrated", 8.5)), 17),
        (surveyed(68, 25.5, 93.5), 93.5),
    ],
    ids=["integrated", "integrated, all", "not a sum", "discrete", "both", "both, without it", "capital", "unknown"],
)
def test_memory_of_an_integrated_gpu_counts_once(survey: dict[str, Any], usable: float) -> None:
    assert lms.HardwareSurvey.from_dict(survey).memory_bytes == usable * GB


async def test_a_plan_takes_only_the_memory_that_is_there_and_says_what_is_not_known_of_it() -> None:
    failed = {"status": "gpuSurveyUnsuccessful", "message": "the driver does not respond"}
    survey = surveyed(8 * 1.073741824, 4, 8 * 1.073741824 + 4, (INTEGRATED, 4), compatibility=failed)
    fault = Injection("surveyHardware first packet", says(survey), ALWAYS)
    async with serving(entry("a", 9), faults=[fault]) as (_, client):
        plan = await client.plan(["a"])
    assert (plan.capacity_bytes, plan.fits) == (8 * GIB, False)
    assert plan.problems == ("llama.cpp: the driver does not respond",)
    assert "not known of the hardware: llama.cpp: the driver does not respond" in str(plan)


def test_a_gpu_that_cannot_be_queried_hides_no_other_and_its_reason_is_shown() -> None:
    survey = surveyed(16, 8, 24, (DISCRETE, 8))
    found = survey["engines"][0]["hardwareSurvey"]["gpuSurveyResult"]
    found["gpuInfo"] += [{"name": None, "deviceId": 1, "totalMemoryCapacityBytes": None}, 5]
    found["result"] = {"code": "error", "message": "device 1 cannot be queried"}
    read = lms.HardwareSurvey.read(survey)
    assert [gpu.name for gpu in read.gpus] == [DISCRETE, "unknown"]
    assert read.problems == ["llama.cpp: GPUs: device 1 cannot be queried"]


async def test_an_estimate_of_nulls_is_none_and_keeps_what_the_guardrails_say() -> None:
    nulls = dict.fromkeys(("modelBytes", "contextBytes", "totalBytes", "totalVramBytes"))
    estimate = {"memory": {"confidence": "low", **nulls}, "passesGuardrails": False}
    fault = Injection("estimateModelUsage first packet", says(estimate), ALWAYS)
    async with serving(entry("a", 6), faults=[fault]) as (_, client):
        plan = await client.plan(["a"])
        estimated = await client.llm.estimate_usage("a")
    assert (plan.models[0].memory_bytes, plan.models[0].fit) == (None, "too_large")
    assert (estimated.memory.total_bytes, estimated.passes_guardrails) == (None, False)


# Evictions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ttl", "evict", "is_own", "goes"),
    [(None, "own", True, False), (None, "any", False, True), (60, "own", True, True)],
)
async def test_what_was_loaded_without_a_ttl_stays(ttl: float | None, evict: str, is_own: bool, goes: bool) -> None:
    async with serving(*SIZES) as (server, client):
        if is_own:
            await client.llm.model("a", load_policy="explicit", ttl=ttl or math.inf)
        else:
            server.load("a", ttl=ttl)
        plan = await client.plan(["c"], evict=evict)
        if goes:
            with pytest.warns(lms.LMStudioEvictionWarning) if is_own else nullcontext():
                await fit(client, "c", load_policy="fit" if evict == "own" else "fit_any")
        else:
            with pytest.raises(TOO_LARGE, match="stays: it was loaded without a TTL") as caught:
                await fit(client, "c", load_policy="fit" if evict == "own" else "fit_any")
            assert caught.value.plan == plan
            assert "load_policy='fit_any'" in str(caught.value)
        assert loaded(server) == (["c"] if goes else ["a"])
        assert plan.evicts == (("a",) if goes else ())


async def test_the_least_recently_used_goes_first() -> None:
    async with serving(entry("a", 3), entry("b", 3), entry("d", 3), entry("new", 2)) as (server, client):
        for key in "abd":
            server.load(key, ttl=60)
        for key in "bda":
            await (await client.llm.model(key, load_policy="require_loaded")).respond("Hi")
        with pytest.warns(lms.LMStudioEvictionWarning):
            await fit(client, "new")
        assert loaded(server) == ["a", "d", "new"]


async def test_what_was_just_loaded_here_counts_as_used_and_what_others_never_used_does_not() -> None:
    async with serving(entry("a", 3), entry("b", 3), entry("d", 3), entry("new", 2)) as (server, client):
        await client.llm.model("a", load_policy="explicit")
        await (await client.llm.model("b", load_policy="explicit")).respond("Hi")
        server.load("d", ttl=60)
        evicted = [(await plan_of(client, "new")).evicts]
        server.unload("d")
        await client.llm.model("d", load_policy="explicit")
        evicted.append((await plan_of(client, "new")).evicts)
    assert evicted == [("d",), ("b",)]


async def test_what_has_requests_stays(gate: Gate) -> None:
    models = entry("busy", 4, slots=1), entry("idle", 4), entry("c", 6), entry("d", 7), entry("huge", 11)
    async with serving(*models, engines=gate.engines()) as (server, client):
        busy = await fit(client, "busy")
        held = asyncio.create_task(busy.respond("hold"))
        await asyncio.to_thread(gate.reached.wait, 600)
        await (await fit(client, "idle")).respond("Hi")
        with pytest.warns(lms.LMStudioEvictionWarning, match="loading 'c' evicted 'idle'"):
            await fit(client, "c")
        with pytest.raises(TOO_LARGE) as caught:
            await fit(client, "d")
        stays = {each.identifier: each.stays_because for each in caught.value.plan.loaded}
        assert stays == {"busy": "it has requests", "c": None}
        assert caught.value.retryable
        assert "'d' does not fit into the memory of" in str(caught.value)
        assert "until requests to other models have ended\n" in str(caught.value)
        with pytest.raises(TOO_LARGE, match="and nothing more may be evicted") as never:
            await fit(client, "huge")
        assert not never.value.retryable
        assert str(caught.value).endswith("suggestion: use a smaller model, or unload one of those that stay")
        assert loaded(server) == ["busy", "c"]
        gate.open()
        assert (await held).content == "so done"


@pytest.mark.filterwarnings("ignore::lmstudio_integrations.LMStudioEvictionWarning")
async def test_a_middleware_that_retries_waits_for_the_requests_of_another_model(gate: Gate) -> None:
    class WaitMiddleware(AgentMiddleware):
        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            try:
                return await handler(request)
            finally:
                gate.open()
                await held

    async with serving(entry("busy", 6), entry("d", 7), engines=gate.engines()) as (server, client):
        busy = await fit(client, "busy")
        held = asyncio.create_task(busy.respond("hold"))
        await asyncio.to_thread(gate.reached.wait, 600)
        model = ChatLMStudio(host=server.address, model="d", load_policy="fit")
        retry = ModelRetryMiddleware(max_retries=1, initial_delay=0, on_failure="error")
        agent: Any = create_agent(model, middleware=[retry, WaitMiddleware()])
        assert (await agent.ainvoke({"messages": ["Hi"]}))["messages"][-1].text
        assert loaded(server) == ["d"]


async def test_what_gets_a_request_after_the_plan_stays(gate: Gate) -> None:
    async def predict_first(connection: ProxiedConnection, item: WireItem) -> None:
        threads.submit(ChatLMStudio(host=server.address, model="a").invoke, "hold")
        await asyncio.to_thread(gate.reached.wait, 600)
        await forward(connection, item)

    faults = [Injection("getInstanceProcessingState request", predict_first, skip=1)]
    with ThreadPoolExecutor() as threads:
        async with serving(*SIZES, engines=gate.engines(), faults=faults) as (server, client):
            await fit(client, "a")
            with pytest.raises(TOO_LARGE, match="stays: it has requests"):
                await fit(client, "c")
            assert states(server) == [("a", "loaded")]
            assert evictions(client) == []
            gate.open()


async def test_an_instance_that_is_idle_and_queued_in_turn_is_not_asked_without_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    def pause(_operation: Operation, seconds: float) -> Flow[None]:
        pauses.append(seconds)
        yield from ()

    monkeypatch.setattr(Operation, "pause", pause)
    asked = 0

    def state(message: dict[str, Any]) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        busy = asked % 2 == 0 and asked < 12
        return {**message, "result": {"status": "idle", "queued": int(busy)}}

    faults = [Injection("getInstanceProcessingState first packet", replace(state), ALWAYS)]
    async with serving(*SIZES, faults=faults) as (server, client):
        server.load("a", ttl=60)
        await fit(client, "c")
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0]


@pytest.mark.parametrize("key", ["c", "liar"])
async def test_another_program_may_unload_first(key: str) -> None:
    async def unload_first(connection: ProxiedConnection, item: WireItem) -> None:
        await asyncio.to_thread(server.unload, "a")
        await forward(connection, item)

    faults = [Injection("unloadModel request", unload_first)]
    async with serving(*SIZES, LIAR, faults=faults) as (server, client):
        await fit(client, "a")
        with nullcontext() if key == "c" else pytest.raises(TOO_LARGE):
            await fit(client, key)
        assert [state for state in states(server) if state[0] == "a"] == [("a", "unloaded")]
        assert loaded(server) == (["c"] if key == "c" else [])
        assert evictions(client) == []


async def test_an_eviction_is_one_log_record_one_warning_and_in_the_hosts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lmstudio_integrations.client.models.fitting")
    async with serving(*SIZES) as (server, client):
        await fit(client, "a")
        assert not caplog.records
        with pytest.warns(lms.LMStudioEvictionWarning) as warned:
            await fit(client, "c")
        await fit(client, "c")
        assert evictions(client) == [("a", "c", False)]
        (record,) = caplog.records
        with ChatLMStudio(host=server.address, model="c") as model:
            (host,) = model.hosts()
            (eviction,) = host.evictions
    first, *table = record.getMessage().splitlines()
    assert first == "evicted a to load 'c'"
    assert "fits (estimated) once a is unloaded" in table[2]
    (warning_,) = warned
    assert str(warning_.message).startswith(
        "loading 'c' evicted 'a', which this program uses too: both do not fit into the memory"
    )
    assert (eviction.identifier, eviction.model_key, eviction.evicted_for) == ("a", "a", "c")


async def test_one_caller_at_a_time_makes_room_on_a_machine(gate: Gate) -> None:
    """Otherwise the second load would be refused, beside what the first has not loaded yet."""
    slowly = {"when": {"load": True}, "then": [AT_THE_GATE]}
    models = entry("a", 6, rules=[slowly]), entry("c", 5)
    devices = [{"name": "studio", "identifier": "id", "memory_gib": 10}]
    async with serving(*models, devices=devices, engines=gate.engines()) as (server, client):
        first = asyncio.create_task(fit(client, "a", device="studio"))
        await asyncio.to_thread(gate.reached.wait, 600)
        second = asyncio.create_task(fit(client, "c", device="id"))
        await wait_until(lambda: any("SingleFlight.wait" in repr(task) for task in asyncio.all_tasks()))
        gate.open()
        await first
        with pytest.warns(lms.LMStudioEvictionWarning):
            await second
        assert states(server) == [("a", "unloaded"), ("c", "loaded")]


async def test_of_several_hosts_one_where_nothing_must_go_loads_the_model() -> None:
    async with serving(*SIZES) as (crowded, _), serving(*SIZES) as (empty, _):
        crowded.load("a", ttl=60)
        with ChatLMStudio(model="c", host=[crowded.address, empty.address], load_policy="fit") as model:
            await model.ainvoke("Hi")
        assert (loaded(crowded), loaded(empty)) == (["a"], ["c"])


async def test_no_model_goes_for_a_load_in_the_background(gate: Gate) -> None:
    models = entry("a", 4), entry("c", 7, slots=1)
    async with serving(*models, engines=gate.engines()) as (busy, _), serving(*models) as (crowded, _):
        busy.load("c")
        with ChatLMStudio(model="c", host=[busy.address, crowded.address], load_policy="fit") as model:
            held = asyncio.create_task(model.ainvoke("hold"))
            await asyncio.to_thread(gate.reached.wait, 600)
            crowded.load("a", ttl=60)
            waiting = asyncio.create_task(model.ainvoke("Hi"))
            await asyncio.to_thread(busy.wait_for, lambda: len(busy.predictions) == 2)
            gate.open()
            assert (await held).text == "so done"
            assert (await waiting).text
            assert [host.lacks_room for host in await model.ahosts()] == [False, True]
        assert states(crowded) == [("a", "loaded")]


# What fails -----------------------------------------------------------------------------------------------------------


async def test_what_was_evicted_in_vain_is_loaded_again_as_it_was() -> None:
    config = {"max_parallel_predictions": 2, "context_length": 1024, "seed": 7}
    async with serving(*SIZES, LIAR) as (server, client):
        await client.llm.load_new_instance("a", "mine", ttl=600, config=config)
        server.load("b", identifier="theirs", ttl=60)
        before = [(info.identifier, info.ttl_ms, info.context_length) for info in server.loaded()]
        with pytest.warns(lms.LMStudioEvictionWarning), pytest.raises(TOO_LARGE) as caught:
            await fit(client, "liar")
        assert [(info.identifier, info.ttl_ms, info.context_length) for info in server.loaded()] == before[::-1]
        mine = await client.llm.model("mine", load_policy="require_loaded")
        assert (await mine.get_load_config()).seed == 7
        assert evictions(client) == [("theirs", "liar", True), ("mine", "liar", True)]
        again = await client.plan(["liar"])
    text = str(caught.value)
    assert text.endswith("\n  evicted before: 'theirs', which was loaded again; 'mine', which was loaded again")
    assert caught.value.plan.models[0].verdict.startswith("does not fit (seen); ")
    assert again.models[0].fit == "too_large"
    assert [each.stays_because for each in again.loaded] == [None, None]
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (type(copied), str(copied), copied.plan, copied.title) == (
        TOO_LARGE,
        text,
        caught.value.plan,
        caught.value.title,
    )


async def test_on_a_device_nothing_else_of_the_same_name_is_touched() -> None:
    liar, devices = entry("liar", 7, estimate_factor=0.5), [{"name": "studio", "memory_gib": 6}]
    async with serving(entry("a", 4), liar, devices=devices) as (server, client):
        for device in ("local", "studio"):
            await client.llm.model("a", load_policy="explicit", device=device)
        before = [(info.identifier, info.device_identifier) for info in server.loaded()]
        with (
            pytest.warns(lms.LMStudioEvictionWarning),
            pytest.raises(TOO_LARGE, match="'a', which was loaded again"),
        ):
            await fit(client, "liar", device="studio")
        assert [(info.identifier, info.device_identifier) for info in server.loaded()] == before
        assert [(load.device, load.state) for load in server.loads if load.key == "a"] == [
            (None, "loaded"),
            ("studio", "unloaded"),
            ("studio", "loaded"),
        ]


async def test_what_cannot_be_loaded_again_is_named() -> None:
    once = {"when": {"load": True, "round": 2}, "then": [{"error": "the file is gone"}]}
    async with serving(entry("a", 4, rules=[once]), LIAR) as (_, client):
        await fit(client, "a")
        with pytest.warns(lms.LMStudioEvictionWarning), pytest.raises(TOO_LARGE) as caught:
            await fit(client, "liar")
        assert evictions(client) == [("a", "liar", False)]
    assert "\n  evicted before: 'a', which could not be loaded again (" in str(caught.value)
    assert "the file is gone" in str(caught.value)


async def test_after_a_refusal_more_is_evicted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lmstudio_integrations.client.models.fitting")
    async with serving(entry("a", 4), entry("d", 4), entry("liar", 7, estimate_factor=0.5)) as (server, client):
        await fit(client, "a")
        await fit(client, "d")
        with pytest.warns(lms.LMStudioEvictionWarning):
            await fit(client, "liar")
        assert loaded(server) == ["liar"]
        assert evictions(client) == [("a", "liar", False), ("d", "liar", False)]
    assert [record.getMessage().partition("\n")[0] for record in caplog.records] == [
        "evicted a to load 'liar'",
        "evicted d to load 'liar'",
    ]


async def test_any_failure_of_the_load_brings_back_what_was_evicted() -> None:
    broken = {"when": {"load": True}, "then": [{"error": "the file is broken"}]}
    async with serving(entry("a", 4), entry("broken", 7, rules=[broken])) as (server, client):
        await fit(client, "a")
        with pytest.warns(lms.LMStudioEvictionWarning), pytest.raises(lms.LMStudioServerError) as caught:
            await fit(client, "broken")
        assert loaded(server) == ["a"]
    assert "the file is broken" in str(caught.value)
    assert str(caught.value).endswith("\n  evicted before: 'a', which was loaded again")


async def test_what_was_evicted_is_named_also_if_a_callback_raises() -> None:
    def fail(progress: float) -> None:
        raise KeyError(progress)

    async with serving(*SIZES) as (server, client):
        server.load("a", ttl=60)
        with pytest.raises(KeyError) as caught:
            await client.llm.model("c", load_policy="fit", on_load_progress=fail)
        (note,) = caught.value.__notes__
        assert note.startswith("evicted before: 'a', which ")


async def test_a_load_that_is_cancelled_leaves_nothing_loading(gate: Gate) -> None:
    slowly = {"when": {"load": True}, "then": [AT_THE_GATE]}
    models = entry("a", 4), entry("slow", 7, rules=[slowly])
    async with serving(*models, engines=gate.engines()) as (server, client):
        await fit(client, "a")
        loading = asyncio.create_task(fit(client, "slow"))
        with pytest.warns(lms.LMStudioEvictionWarning):
            await asyncio.to_thread(gate.reached.wait, 600)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        await asyncio.to_thread(server.wait_for, lambda: states(server)[-1] == ("slow", "cancelled"))
        assert evictions(client) == [("a", "slow", False)]
        await fit(client, "a")
        assert loaded(server) == ["a"]


async def test_an_eviction_whose_response_is_lost_is_undone_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lmstudio_integrations.client.models.fitting")
    async with serving(*SIZES, faults=[Injection("unloadModel first packet", reset)]) as (server, client):
        await fit(client, "a")
        with pytest.raises(lms.LMStudioConnectionLostError, match="'a', which was loaded again"):
            await fit(client, "c")
        assert states(server) == [("a", "unloaded"), ("a", "loaded")]
    assert not caplog.records


async def test_what_is_evicted_before_a_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lmstudio_integrations.client.models.fitting")
    models, lost = (entry("a", 4), entry("d", 4), entry("c", 10)), Injection("unloadModel request", reset, skip=1)
    async with serving(*models, faults=[lost]) as (server, client):
        await fit(client, "a")
        await fit(client, "d")
        with pytest.warns(lms.LMStudioEvictionWarning), pytest.raises(lms.LMStudioConnectionLostError) as caught:
            await fit(client, "c")
        assert loaded(server) == ["d", "a"]
    assert str(caught.value).endswith("\n  evicted before: 'a', which was loaded again")
    assert [record.getMessage().partition("\n")[0] for record in caplog.records] == ["evicted a to load 'c'"]


@pytest.mark.parametrize(("made", "requested"), [({}, None), ({"context_length": 8192}, 8192)])
async def test_the_error_of_what_is_alone_too_large_names_the_longest_context_that_fits(
    made: dict[str, Any], requested: int | None
) -> None:
    models = entry("long", 4, kib_per_token=1024, context_length=8192), entry("large", 12)
    async with serving(*models) as (_, client):
        with pytest.raises(TOO_LARGE, match=r"suggestion: load it with context_length=\d+$") as caught:
            await fit(client, "long", config=made)
        assert caught.value.plan.models[0].requested_context_length == requested
        with pytest.raises(TOO_LARGE, match=r"suggestion: use a smaller model$"):
            await fit(client, "large", load_policy="fit_any")
