"""The registry: loads, just-in-time loads, names, unloading, and the records of loads."""

import dataclasses
import json
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ManualClock, ModelEntry
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine
from lmstudio_integrations.errors import LMStudioModelLoadError
from tests.emulator.bare_client import STACK, TIMEOUT, Wire, load_stack, named, prediction_request, wire
from tests.emulator.models.registry_models import (
    ABSENT,
    CHAT,
    EMBEDDING,
    HUGE,
    OTHER,
    SLOW,
    kinds,
    loaded,
    predict,
)


def states(server: Emulator) -> list[tuple[str, str, str]]:
    return [(load.identifier, load.mode, load.state) for load in server.loads]


# Loads


def test_a_load_reports_the_model_the_progress_and_the_instance(server: Emulator, me: Wire) -> None:
    packets = me.stream("loadModel", {"modelKey": CHAT.key, "loadConfigStack": STACK})
    assert kinds(packets) == ["resolved", "progress", "success"]
    assert "ambiguous" not in packets[0]
    assert "identifier" not in packets[0]["info"]
    progress = [packet["progress"] for packet in packets[1:-1]]
    assert progress == sorted(progress)
    assert progress[-1] == 1
    assert packets[-1]["info"]["ttlMs"] is None
    with wire(server, "embedding") as embedding:
        assert embedding.result("listLoaded") == [], "a namespace lists its own kind"


def test_of_several_models_that_fit_the_first_is_loaded(me: Wire) -> None:
    packets = me.stream("loadModel", {"modelKey": "hugging-quants/", "loadConfigStack": STACK})
    assert packets[0]["ambiguous"] == [CHAT.key, OTHER.key]
    assert packets[-1]["info"]["modelKey"] == CHAT.key


def test_another_device_than_this_machine_is_an_error(me: Wire) -> None:
    assert me.load(CHAT.key, deviceIdentifier=None)["deviceIdentifier"] is None
    error = me.get(CHAT.key, deviceIdentifier="laptop")[-1]["error"]
    assert error["title"] == 'The device "laptop" is not connected'
    assert error["cause"] == "This server knows no linked devices."


def test_a_server_may_fit_the_context_length() -> None:
    with Emulator([ModelEntry(key="fitted", loaded_context_length=512)]) as fitting, wire(fitting) as me:
        for requested in (8192, 128):
            assert me.load("fitted", loadConfigStack=load_stack(contextLength=requested))["contextLength"] == 512
        fields = me.result("getLoadConfig", {"specifier": named("fitted")})["fields"]
    assert {"key": "llm.load.contextLength", "value": 512} in fields


def test_further_instances_get_numbers_and_references_of_their_own(me: Wire) -> None:
    infos = [me.load(CHAT.key) for _ in range(3)]
    assert [info["identifier"] for info in infos] == [CHAT.key, f"{CHAT.key}:2", f"{CHAT.key}:3"]
    assert len({info["instanceReference"] for info in infos}) == 3
    me.result("unloadModel", {"identifier": f"{CHAT.key}:2"})
    assert me.load(CHAT.key)["identifier"] == f"{CHAT.key}:2"


def test_an_identifier_that_cannot_be_requested_is_rejected(server: Emulator, me: Wire) -> None:
    for identifier in ("", "__proto__"):
        parameter = {"modelKey": CHAT.key, "identifier": identifier, "loadConfigStack": STACK}
        assert "cannot name a model" in me.stream("loadModel", parameter)[-1]["error"]["title"]
        error = me.rpc_error("unloadModel", {"identifier": identifier})
        assert error["displayData"]["code"] == "generic.noModelMatchingQuery"
    assert loaded(server) == []


def test_an_identifier_is_taken_as_soon_as_its_load_begins(server: Emulator, me: Wire) -> None:
    channel = me.open("loadModel", {"modelKey": SLOW.key, "identifier": "mine", "loadConfigStack": STACK})
    assert me.receive()["message"]["type"] == "resolved"
    with wire(server) as other:
        packets = other.stream("loadModel", {"modelKey": CHAT.key, "identifier": "mine", "loadConfigStack": STACK})
        assert "already exists" in packets[0]["error"]["title"]
        me.send(channel, {"type": "cancel"})
        assert [packet["type"] for packet in me.packets(channel)][-1] == "error"
        assert other.load(CHAT.key, identifier="mine")["identifier"] == "mine"


@pytest.mark.parametrize(("endpoint", "member"), [("loadModel", "modelKey"), ("getOrLoad", "identifier")])
def test_a_load_can_be_cancelled(server: Emulator, me: Wire, endpoint: str, member: str) -> None:
    channel = me.open(endpoint, {member: SLOW.key, "loadConfigStack": STACK})
    assert me.receive()["message"]["type"] in {"resolved", "startLoading"}
    assert [load.state for load in server.loads] == ["loading"]
    me.send(channel, {"type": "cancel"})
    assert [packet["type"] for packet in me.packets(channel)][-1] == "error"
    assert loaded(server) == []
    assert [load.state for load in server.loads] == ["cancelled"]


def test_a_load_ends_with_its_socket(server: Emulator) -> None:
    with wire(server) as me:
        me.open("loadModel", {"modelKey": SLOW.key, "identifier": "mine", "loadConfigStack": STACK})
        me.receive()
    server.wait_for(lambda: not server.connections, TIMEOUT)
    assert server.load(CHAT.key, identifier="mine").identifier == "mine"


@pytest.mark.parametrize("entry", [CHAT, EMBEDDING], ids=["llm", "embedding"])
def test_the_load_config_has_full_keys(server: Emulator, entry: ModelEntry) -> None:
    kind = entry.kind
    off: dict[str, Any] = {"llama.ropeFrequencyBase": {"checked": True, "value": False}}
    with wire(server, kind) as me:
        info = me.load(entry.key, loadConfigStack=load_stack(kind, contextLength=512, **off))
        assert info["contextLength"] == 512
        config = me.result("getLoadConfig", {"specifier": named(entry.key)})
    found = {field["key"]: field["value"] for field in config["fields"]}
    assert found[f"{kind}.load.contextLength"] == 512
    assert found[f"{kind}.load.llama.ropeFrequencyBase"] == {"checked": False, "value": 0}
    assert found[f"{kind}.load.llama.evalBatchSize"] == 2048
    assert found[f"{kind}.load.seed"] == {"checked": False, "value": -1}
    assert all(key.startswith((f"{kind}.load.", "load.")) for key in found)


# Just-in-time loads


def test_get_or_load_loads_what_is_not_there_and_returns_it_from_then_on(server: Emulator, me: Wire) -> None:
    packets = me.get(CHAT.key)
    assert kinds(packets) == ["startLoading", "loadProgress", "loadSuccess"]
    assert packets[0]["identifier"] == packets[-1]["info"]["identifier"] == CHAT.key
    assert packets[-1]["info"]["ttlMs"] == 3_600_000
    again = me.get(CHAT.key, loadTtlMs=1, loadConfigStack=load_stack(contextLength=9))
    assert kinds(again) == ["alreadyLoaded"]
    assert (again[0]["info"]["ttlMs"], again[0]["info"]["contextLength"]) == (3_600_000, 4096)
    assert states(server) == [(CHAT.key, "just_in_time", "loaded")]


def test_a_just_in_time_load_evicts_a_just_in_time_model_of_any_kind(server: Emulator, me: Wire) -> None:
    me.load(OTHER.key, ttlMs=1000)
    with wire(server, "embedding") as embedding:
        embedding.get(EMBEDDING.key)
    packets = me.get(CHAT.key)
    assert kinds(packets) == ["unloadingOtherJITModel", "startLoading", "loadProgress", "loadSuccess"]
    assert packets[0]["info"]["type"] == "embedding"
    assert packets[0]["info"]["modelKey"] == EMBEDDING.key
    assert loaded(server) == [OTHER.key, CHAT.key], "a model that was loaded on purpose stays"
    assert states(server) == [
        (OTHER.key, "explicit", "loaded"),
        (EMBEDDING.key, "just_in_time", "evicted"),
        (CHAT.key, "just_in_time", "loaded"),
    ]


def test_a_model_is_evicted_even_while_it_generates(server: Emulator, me: Wire) -> None:
    me.get(CHAT.key)
    channel = predict(me, "Wait")
    for _ in range(3):
        me.receive()
    with wire(server) as other:
        assert kinds(other.get(OTHER.key))[0] == "unloadingOtherJITModel"
    assert list(me.packets(channel))[-1]["stats"]["stopReason"] == "modelUnloaded"
    assert loaded(server) == [OTHER.key]


def test_a_shared_load_goes_on_until_its_last_client_cancels(server: Emulator, me: Wire) -> None:
    parameter = {"identifier": SLOW.key, "loadConfigStack": STACK}
    with wire(server) as other:
        first, last = (socket.open("getOrLoad", parameter) for socket in (me, other))
        assert [socket.receive()["message"]["type"] for socket in (me, other)] == ["startLoading", "startLoading"]
        me.send(first, {"type": "cancel"})
        assert [packet["type"] for packet in me.packets(first)][-1] == "error"
        assert me.result("listLoaded") == []
        assert states(server) == [(SLOW.key, "just_in_time", "loading")]
        other.send(last, {"type": "cancel"})
        assert [packet["type"] for packet in other.packets(last)][-1] == "error"
        server.wait_for(lambda: states(server) == [(SLOW.key, "just_in_time", "cancelled")], TIMEOUT)


def test_a_shared_load_gives_one_instance() -> None:
    with Emulator([ModelEntry(key="m", load_seconds=0.05)]) as server, wire(server) as one, wire(server) as two:
        parameter = {"identifier": "m", "loadConfigStack": STACK}
        channels = (one.open("getOrLoad", parameter), two.open("getOrLoad", parameter))
        ends = [list(each.packets(channel))[-1] for each, channel in zip((one, two), channels, strict=True)]
        assert len({end["info"]["instanceReference"] for end in ends}) == 1
        assert loaded(server) == ["m"]


# Names


def test_a_name_finds_its_model_in_all_requests(me: Wire) -> None:
    me.get("llama")
    for name in (CHAT.key, "llama", "HUGGING-QUANTS/LLAMA", CHAT.full_path):
        assert [packet["info"]["modelKey"] for packet in me.get(name)] == [CHAT.key]
        assert me.result("tokenize", {"specifier": named(name), "inputString": "x"})["tokens"]
        assert me.stream("predict", prediction_request(name))[-1]["type"] == "success"


def test_a_load_by_full_path_has_the_path_as_its_identifier(me: Wire) -> None:
    assert me.get(CHAT.full_path)[-1]["info"]["identifier"] == CHAT.full_path
    assert me.load(CHAT.full_path)["identifier"] == f"{CHAT.full_path}:2"
    assert me.load(CHAT.key)["identifier"] == CHAT.key
    assert me.load(CHAT.full_path, identifier="mine")["identifier"] == "mine"
    assert me.stream("predict", prediction_request(CHAT.full_path))[-1]["modelInfo"]["identifier"] == CHAT.full_path


def test_an_identifier_comes_before_a_key_and_all_members_of_a_query_must_match(me: Wire) -> None:
    me.load(CHAT.key)
    me.load(OTHER.key, identifier="llama")

    def found(**query: Any) -> str | None:
        parameter = {"specifier": {"type": "query", "query": query}, "throwIfNotFound": False}
        info = me.result("getModelInfo", parameter)
        return None if info is None else info["modelKey"]

    assert found() == CHAT.key
    assert found(identifier="llama") == OTHER.key
    assert found(vision=True) == OTHER.key
    assert found(domain="llm", vision=False) == CHAT.key
    assert found(domain="embedding") is None
    assert found(identifier=CHAT.key, vision=True) is None
    assert found(path="hugging-quants/qwen-gguf") == OTHER.key
    assert found(path="hugging-quants/qwen") is None
    assert found(deviceIdentifier="elsewhere") is None
    assert found(deviceIdentifier=None) == CHAT.key


def test_requests_never_load(server: Emulator, me: Wire) -> None:
    for endpoint, more in (("tokenize", {"inputString": "x"}), ("getModelInfo", {"throwIfNotFound": True})):
        error = me.rpc_error(endpoint, {"specifier": named(CHAT.key)} | more)
        assert error["displayData"] == {
            "code": "generic.noModelMatchingQuery",
            "query": {"identifier": CHAT.key},
            "loadedModelsSample": [],
            "totalLoadedModels": 0,
        }
    response = me.call("getModelInfo", {"specifier": named(CHAT.key), "throwIfNotFound": False})
    assert response == {"type": "rpcResult"}
    assert loaded(server) == []


def test_an_unknown_model_is_rejected_with_samples(server: Emulator, me: Wire) -> None:
    for name in ("no-such-model", ABSENT.key, "l"):
        error = me.get(name)[-1]["error"]
        assert error["title"] == error["rootTitle"]
        assert error["displayData"]["code"] == "generic.pathNotFound"
        assert error["displayData"]["path"] == name
        paths = [entry.full_path for entry in (CHAT, OTHER, SLOW, HUGE)]
        assert error["displayData"]["availablePathsSample"] == paths
        assert error["displayData"]["totalModels"] == 4
    assert server.loads == ()


def test_a_model_of_the_other_kind_is_rejected(server: Emulator, me: Wire) -> None:
    error = me.get(EMBEDDING.key)[-1]["error"]
    expected = {
        "code": "generic.domainMismatch",
        "path": EMBEDDING.full_path,
        "actualDomain": "embedding",
        "expectedDomain": "llm",
    }
    assert error["displayData"] == expected
    server.load(EMBEDDING.key, identifier="vectors")
    assert me.rpc_error("tokenize", {"specifier": named("vectors"), "inputString": "x"})["displayData"] == expected
    assert me.get("vectors")[-1]["error"]["displayData"] == expected


# Unloading


def test_only_the_instance_that_is_named_is_unloaded(server: Emulator, me: Wire) -> None:
    for identifier in (CHAT.key, f"{CHAT.key}:2", "mine"):
        me.load(CHAT.key, identifier=identifier)
    assert me.call("unloadModel", {"identifier": CHAT.key, "deviceIdentifier": None}) == {"type": "rpcResult"}
    for name in (CHAT.key, *CHAT.aliases, "hugging-quants/llama"):
        assert me.rpc_error("unloadModel", {"identifier": name})["displayData"]["totalLoadedModels"] == 2
    assert loaded(server) == [f"{CHAT.key}:2", "mine"]
    me.result("unloadModel", {"identifier": "mine"})
    me.result("unloadModel", {"identifier": "hugging-quants/llama"})
    assert loaded(server) == []


def test_unloading_ends_a_prediction_that_has_written_nothing(server: Emulator, me: Wire) -> None:
    server.load(CHAT.key)
    channel = predict(me, "Before")
    server.wait_for(lambda: bool(server.predictions) and server.predictions[0].state == "running", TIMEOUT)
    server.unload(CHAT.key)
    last = list(me.packets(channel))[-1]
    assert last["type"] == "success"
    assert last["stats"]["stopReason"] == "modelUnloaded"
    assert server.predictions[0].stop_reason == "modelUnloaded"


def test_a_reference_ends_with_its_loading(server: Emulator, me: Wire) -> None:
    specifier = {"type": "instanceReference", "instanceReference": me.load(CHAT.key)["instanceReference"]}
    assert me.result("tokenize", {"specifier": specifier, "inputString": "x"})
    server.unload(CHAT.key)
    server.load(CHAT.key)
    error = me.rpc_error("tokenize", {"specifier": specifier, "inputString": "x"})
    assert error["displayData"] == {"code": "generic.specificModelUnloaded"}


def test_unloading_ends_a_call() -> None:
    rules = ({"when": {"last": "x"}, "then": [{"fault": "stall"}]},)
    stalling = ModelEntry(key="vectors", kind="embedding", rules=rules)
    with Emulator([stalling], load=["vectors"]) as server, wire(server, "embedding") as me:
        parameter = {"modelSpecifier": named("vectors"), "inputString": "x"}
        me.send_frame({"type": "rpcCall", "endpoint": "embedString", "callId": 1, "parameter": parameter})
        specifier = {"specifier": named("vectors"), "throwIfNotFound": True}
        assert me.result("getInstanceProcessingState", specifier) == {"status": "computingEmbedding", "queued": 1}
        server.unload("vectors")
        assert me.receive()["error"]["displayData"] == {"code": "generic.specificModelUnloaded"}


# By hand


def test_models_are_loaded_at_the_start_and_unloaded_at_the_end() -> None:
    with Emulator([CHAT, OTHER.model_copy(update={"preload": True})], load=["llama"]) as server:
        assert loaded(server) == [OTHER.key, CHAT.key]
        assert all(info.ttl_ms is None for info in server.loaded())
        assert server.load(CHAT.key, ttl=1.5).ttl_ms == 1500
    assert [load.state for load in server.loads] == ["unloaded"] * 3


@pytest.mark.parametrize(
    ("key", "engine", "message"),
    [("no-such-model", "scripted", "no-such-model"), (CHAT.key, "other", "no engine 'scripted'")],
)
def test_a_model_that_cannot_be_loaded_or_unloaded_by_hand_is_an_error(key: str, engine: str, message: str) -> None:
    with pytest.raises(LMStudioModelLoadError, match=message):
        Emulator([CHAT], load=[key], engines={engine: ScriptedEngine()}).start()
    with Emulator([CHAT]) as server, pytest.raises(LMStudioModelLoadError, match="no model is loaded with the"):
        server.unload("x")


# Records


def test_a_load_that_fails_or_expires_or_crashes_is_recorded(server: Emulator, me: Wire, clock: ManualClock) -> None:
    with pytest.raises(LMStudioModelLoadError):
        server.load(HUGE.key)
    me.get(CHAT.key, loadTtlMs=1000)
    clock.advance(1)
    server.wait_for(lambda: states(server)[-1] == (CHAT.key, "just_in_time", "expired"), TIMEOUT)
    me.get(CHAT.key)
    me.stream("predict", prediction_request(CHAT.key, "Crash"))
    server.wait_for(lambda: states(server)[-1] == (CHAT.key, "just_in_time", "crashed"), TIMEOUT)
    assert me.get(CHAT.key)[-1]["type"] == "loadSuccess", "the next use loads it again"
    assert states(server)[0] == (HUGE.key, "explicit", "failed")


def test_a_load_record_has_the_requested_settings(server: Emulator, me: Wire) -> None:
    off: dict[str, Any] = {"llama.tryMmap": False, "seed": {"checked": False, "value": 0}}
    me.load(CHAT.key, loadConfigStack=load_stack(contextLength=512, unheardOf=1, **off))
    (load,) = server.loads
    assert load.config == {"contextLength": 512, "tryMmap": False, "seed": False, "raw": {"llm.load.unheardOf": 1}}
    assert json.loads(json.dumps(dataclasses.asdict(load)))["key"] == CHAT.key
