"""The registry: loads, just-in-time loads, names, unloading."""

from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine
from lmstudio_integrations.errors import LMStudioModelLoadError
from tests.emulator.bare_client import STACK, Wire, named, prediction_request, wire
from tests.emulator.models.registry_models import ABSENT, CHAT, EMBEDDING, ENTRIES, OTHER, SLOW, kinds, loaded


def test_a_load_reports_the_model_the_progress_and_the_instance(me: Wire) -> None:
    packets = me.stream("loadModel", {"modelKey": CHAT.key, "loadConfigStack": {"layers": []}})
    assert kinds(packets) == ["resolved", "progress", "success"]
    assert "ambiguous" not in packets[0]
    assert "identifier" not in packets[0]["info"]
    progress = [packet["progress"] for packet in packets[1:-1]]
    assert progress == sorted(progress)
    assert progress[-1] == 1
    assert packets[-1]["info"]["ttlMs"] is None


def test_of_several_models_that_fit_the_first_is_loaded(me: Wire) -> None:
    packets = me.stream("loadModel", {"modelKey": "hugging-quants/", "loadConfigStack": {"layers": []}})
    assert packets[0]["ambiguous"] == [CHAT.key, OTHER.key]
    assert packets[-1]["info"]["modelKey"] == CHAT.key


def test_further_instances_get_numbers_and_references_of_their_own(server: Emulator, me: Wire) -> None:
    infos = [me.load(CHAT.key) for _ in range(3)]
    assert [info["identifier"] for info in infos] == [CHAT.key, f"{CHAT.key}:2", f"{CHAT.key}:3"]
    assert len({info["instanceReference"] for info in infos}) == 3
    me.result("unloadModel", {"identifier": f"{CHAT.key}:2"})
    assert me.load(CHAT.key)["identifier"] == f"{CHAT.key}:2"


def test_a_taken_identifier_is_rejected(me: Wire) -> None:
    me.load(CHAT.key, identifier="mine")
    packets = me.stream("loadModel", {"modelKey": CHAT.key, "identifier": "mine", "loadConfigStack": {"layers": []}})
    assert kinds(packets) == ["error"]
    assert "already exists" in packets[0]["error"]["title"]


@pytest.mark.parametrize("identifier", ["", "__proto__", "a\0b", "a" * 1025])
def test_an_identifier_that_cannot_be_requested_is_rejected(server: Emulator, me: Wire, identifier: str) -> None:
    parameter = {"modelKey": CHAT.key, "identifier": identifier, "loadConfigStack": STACK}
    assert "cannot name a model" in me.stream("loadModel", parameter)[-1]["error"]["title"]
    assert loaded(server) == []


def test_an_identifier_is_taken_as_soon_as_its_load_begins(server: Emulator, me: Wire) -> None:
    channel = me.open("loadModel", {"modelKey": SLOW.key, "identifier": "mine", "loadConfigStack": {"layers": []}})
    assert me.receive()["message"]["type"] == "resolved"
    with wire(server) as other:
        packets = other.stream("loadModel", {"modelKey": CHAT.key, "identifier": "mine", "loadConfigStack": STACK})
        assert "already exists" in packets[0]["error"]["title"]
        me.send(channel, {"type": "cancel"})
        assert [packet["type"] for packet in me.packets(channel)][-1] == "error"
        assert other.load(CHAT.key, identifier="mine")["identifier"] == "mine"


@pytest.mark.parametrize(
    ("endpoint", "member"), [("loadModel", "modelKey"), ("getOrLoad", "identifier")], ids=["load", "get-or-load"]
)
def test_a_load_can_be_cancelled(server: Emulator, me: Wire, endpoint: str, member: str) -> None:
    channel = me.open(endpoint, {member: SLOW.key, "loadConfigStack": STACK})
    assert me.receive()["message"]["type"] in {"resolved", "startLoading"}
    me.send(channel, {"type": "cancel"})
    assert [packet["type"] for packet in me.packets(channel)][-1] == "error"
    assert loaded(server) == []


def test_a_load_ends_with_its_socket(server: Emulator) -> None:
    with wire(server) as me:
        me.open("loadModel", {"modelKey": SLOW.key, "identifier": "mine", "loadConfigStack": STACK})
        me.receive()
    server.wait_for(lambda: not server.connections)
    assert server.load(CHAT.key, identifier="mine").identifier == "mine"


def test_a_failed_load_has_a_reason() -> None:
    with (
        Emulator([ModelEntry(key="big", rules=({"when": {"load": True}, "then": [{"fault": "out_of_memory"}]},))]) as s,
        wire(s) as other,
    ):
        packets = other.get("big")
        assert packets[-1]["error"]["title"] == "Failed to load model"
        assert "insufficient system resources" in packets[-1]["error"]["cause"]
        assert loaded(s) == []


@pytest.mark.parametrize("kind", ["llm", "embedding"])
def test_the_load_config_has_full_keys(server: Emulator, kind: str) -> None:
    entry = CHAT if kind == "llm" else EMBEDDING
    fields = [
        {"key": f"{kind}.load.contextLength", "value": 512},
        {"key": f"{kind}.load.llama.ropeFrequencyBase", "value": {"checked": True, "value": False}},
    ]
    stack = {"layers": [{"layerName": "apiOverride", "config": {"fields": fields}}]}
    with wire(server, kind) as me:
        assert me.load(entry.key, loadConfigStack=stack)["contextLength"] == 512
        config = me.result("getLoadConfig", {"specifier": named(entry.key)})
    found = {field["key"]: field["value"] for field in config["fields"]}
    assert found[f"{kind}.load.contextLength"] == 512
    assert found[f"{kind}.load.llama.ropeFrequencyBase"] == {"checked": False, "value": 0}
    assert found[f"{kind}.load.llama.evalBatchSize"] == 2048
    assert found[f"{kind}.load.seed"] == {"checked": False, "value": -1}
    assert all(key.startswith((f"{kind}.load.", "load.")) for key in found)


def test_the_context_length_of_a_load_is_at_most_that_of_the_model(me: Wire) -> None:
    stack = {
        "layers": [
            {"layerName": "apiOverride", "config": {"fields": [{"key": "llm.load.contextLength", "value": 10**9}]}}
        ]
    }
    info = me.load(CHAT.key, loadConfigStack=stack)
    assert info["contextLength"] == info["maxContextLength"]


def test_get_or_load_loads_what_is_not_there(me: Wire) -> None:
    packets = me.get(CHAT.key)
    assert kinds(packets) == ["startLoading", "loadProgress", "loadSuccess"]
    assert packets[0]["identifier"] == packets[-1]["info"]["identifier"] == CHAT.key
    assert packets[-1]["info"]["ttlMs"] == 3_600_000


def test_get_or_load_returns_a_loaded_model(me: Wire) -> None:
    me.load(CHAT.key, ttlMs=5000)
    stack = {
        "layers": [{"layerName": "apiOverride", "config": {"fields": [{"key": "llm.load.contextLength", "value": 9}]}}]
    }
    packets = me.get(CHAT.key, loadTtlMs=1, loadConfigStack=stack)
    assert kinds(packets) == ["alreadyLoaded"]
    assert packets[0]["info"]["ttlMs"] == 5000
    assert packets[0]["info"]["contextLength"] == 4096


def test_a_just_in_time_load_evicts_a_just_in_time_model_of_any_kind(server: Emulator, me: Wire) -> None:
    with wire(server, "embedding") as embedding:
        embedding.get(EMBEDDING.key)
    packets = me.get(CHAT.key)
    assert kinds(packets) == ["unloadingOtherJITModel", "startLoading", "loadProgress", "loadSuccess"]
    assert packets[0]["info"]["type"] == "embedding"
    assert packets[0]["info"]["modelKey"] == EMBEDDING.key
    assert loaded(server) == [CHAT.key]


def test_a_model_loaded_on_purpose_stays(server: Emulator, me: Wire) -> None:
    me.load(CHAT.key, ttlMs=1000)
    assert kinds(me.get(OTHER.key)) == ["startLoading", "loadProgress", "loadSuccess"]
    assert loaded(server) == [CHAT.key, OTHER.key]


def test_a_model_is_evicted_even_while_it_generates(server: Emulator, me: Wire) -> None:
    me.get(CHAT.key)
    channel = me.open("predict", prediction_request(CHAT.key, "Wait"))
    for _ in range(3):
        me.receive()
    with wire(server) as other:
        assert kinds(other.get(OTHER.key))[0] == "unloadingOtherJITModel"
    assert list(me.packets(channel))[-1]["stats"]["stopReason"] == "modelUnloaded"
    assert loaded(server) == [OTHER.key]


def test_eviction_can_be_switched_off() -> None:
    with Emulator(ENTRIES, auto_evict=False) as server, wire(server) as me:
        me.get(CHAT.key)
        me.get(OTHER.key)
        assert loaded(server) == [CHAT.key, OTHER.key]


def test_simultaneous_requests_share_one_load(server: Emulator, me: Wire) -> None:
    parameter = {"identifier": SLOW.key, "loadConfigStack": STACK}
    with wire(server) as other:
        channels = (me.open("getOrLoad", parameter), other.open("getOrLoad", parameter))
        assert [each.receive()["message"]["type"] for each in (me, other)] == ["startLoading", "startLoading"]
        me.send(channels[0], {"type": "cancel"})
        assert [packet["type"] for packet in me.packets(channels[0])][-1] == "error"
        other.send(channels[1], {"type": "cancel"})
        assert [packet["type"] for packet in other.packets(channels[1])][-1] == "error"
    assert loaded(server) == []


def test_a_shared_load_gives_one_instance() -> None:
    entry = ModelEntry(key="m", load_seconds=0.05)
    with Emulator([entry]) as server, wire(server) as one, wire(server) as two:
        parameter = {"identifier": "m", "loadConfigStack": STACK}
        channels = (one.open("getOrLoad", parameter), two.open("getOrLoad", parameter))
        ends = [list(each.packets(channel))[-1] for each, channel in zip((one, two), channels, strict=True)]
        assert len({end["info"]["instanceReference"] for end in ends}) == 1
        assert loaded(server) == ["m"]


@pytest.mark.parametrize(
    "name", [CHAT.key, "llama", "hugging-quants/llama-3.2-1b-instruct", "HUGGING-QUANTS/LLAMA", CHAT.full_path]
)
def test_a_name_finds_its_model_in_all_requests(me: Wire, name: str) -> None:
    assert me.get(name)[-1]["info"]["modelKey"] == CHAT.key
    assert kinds(me.get(name)) == ["alreadyLoaded"]
    assert me.result("tokenize", {"specifier": named(name), "inputString": "x"})["tokens"]
    assert me.stream("predict", prediction_request(name))[-1]["type"] == "success"


@pytest.mark.parametrize("load", ["explicit", "just in time"])
def test_a_load_by_full_path_has_the_path_as_its_identifier(server: Emulator, me: Wire, load: str) -> None:
    info = me.load(CHAT.full_path) if load == "explicit" else me.get(CHAT.full_path)[-1]["info"]
    assert info["identifier"] == CHAT.full_path
    assert me.load(CHAT.full_path)["identifier"] == f"{CHAT.full_path}:2"
    assert me.load(CHAT.key)["identifier"] == CHAT.key
    assert me.load(CHAT.full_path, identifier="mine")["identifier"] == "mine"
    assert me.stream("predict", prediction_request(CHAT.full_path))[-1]["modelInfo"]["identifier"] == CHAT.full_path


def test_an_identifier_comes_before_a_key(me: Wire) -> None:
    me.load(CHAT.key)
    me.load(OTHER.key, identifier="llama")
    info = me.result("getModelInfo", {"specifier": named("llama"), "throwIfNotFound": True})
    assert info["modelKey"] == OTHER.key


def test_all_members_of_a_query_must_match(me: Wire) -> None:
    me.load(CHAT.key)
    me.load(OTHER.key)

    def found(**query: Any) -> str | None:
        parameter = {"specifier": {"type": "query", "query": query}, "throwIfNotFound": False}
        info = me.result("getModelInfo", parameter)
        return None if info is None else info["modelKey"]

    assert found() == CHAT.key
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


def test_a_namespace_lists_its_own_kind(server: Emulator, me: Wire) -> None:
    server.load(CHAT.key)
    server.load(EMBEDDING.key)
    assert [info["type"] for info in me.result("listLoaded")] == ["llm"]
    with wire(server, "embedding") as embedding:
        assert [info["type"] for info in embedding.result("listLoaded")] == ["embedding"]


@pytest.mark.parametrize("name", ["no-such-model", ABSENT.key, "l"])
def test_an_unknown_model_is_rejected_with_samples(me: Wire, name: str) -> None:
    error = me.get(name)[-1]["error"]
    assert error["title"] == error["rootTitle"]
    assert error["displayData"]["code"] == "generic.pathNotFound"
    assert error["displayData"]["path"] == name
    assert error["displayData"]["availablePathsSample"] == [CHAT.full_path, OTHER.full_path, SLOW.full_path]
    assert error["displayData"]["totalModels"] == 3


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


def test_unloading_has_no_result(server: Emulator, me: Wire) -> None:
    me.load(CHAT.key)
    assert me.call("unloadModel", {"identifier": CHAT.key, "deviceIdentifier": None}) == {"type": "rpcResult"}
    assert loaded(server) == []


def test_only_the_instance_that_is_named_is_unloaded(server: Emulator, me: Wire) -> None:
    for identifier in (CHAT.key, f"{CHAT.key}:2", "mine"):
        me.load(CHAT.key, identifier=identifier)
    me.result("unloadModel", {"identifier": CHAT.key})
    for name in (CHAT.key, *CHAT.aliases, "hugging-quants/llama"):
        assert me.rpc_error("unloadModel", {"identifier": name})["displayData"]["totalLoadedModels"] == 2
    assert loaded(server) == [f"{CHAT.key}:2", "mine"]
    me.result("unloadModel", {"identifier": "mine"})
    me.result("unloadModel", {"identifier": "hugging-quants/llama"})
    assert loaded(server) == []


@pytest.mark.parametrize("text", ["Wait", "Before"])
def test_unloading_ends_a_prediction(server: Emulator, me: Wire, text: str) -> None:
    server.load(CHAT.key)
    channel = me.open("predict", prediction_request(CHAT.key, text))
    server.wait_for(lambda: bool(server.predictions) and server.predictions[0].state == "running")
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
    stalling = ModelEntry(
        key="vectors", kind="embedding", rules=({"when": {"last": "x"}, "then": [{"fault": "stall"}]},)
    )
    with Emulator([stalling]) as other, wire(other, "embedding") as me:
        other.load("vectors")
        me.send_frame(
            {
                "type": "rpcCall",
                "endpoint": "embedString",
                "callId": 1,
                "parameter": {"modelSpecifier": named("vectors"), "inputString": "x"},
            }
        )
        specifier = {"specifier": named("vectors"), "throwIfNotFound": True}
        assert me.result("getInstanceProcessingState", specifier) == {"status": "computingEmbedding", "queued": 1}
        other.unload("vectors")
        assert me.receive()["error"]["displayData"] == {"code": "generic.specificModelUnloaded"}


def test_models_are_loaded_at_the_start() -> None:
    with Emulator([CHAT, OTHER.model_copy(update={"preload": True})], load=["llama"]) as server:
        assert loaded(server) == [OTHER.key, CHAT.key]
        assert all(info.ttl_ms is None for info in server.loaded())


def test_a_model_that_cannot_be_loaded_at_the_start_is_an_error() -> None:
    with pytest.raises(LMStudioModelLoadError, match="no-such-model"):
        Emulator([CHAT], load=["no-such-model"]).start()


def test_what_is_not_loaded_cannot_be_unloaded(server: Emulator) -> None:
    with pytest.raises(LMStudioModelLoadError, match="no model is loaded with the identifier 'x'"):
        server.unload("x")


def test_a_time_to_live_by_hand_is_in_seconds(server: Emulator) -> None:
    assert server.load(CHAT.key, ttl=1.5).ttl_ms == 1500


def test_an_engine_that_is_not_there_is_an_error() -> None:
    emulator = Emulator([CHAT], load=[CHAT.key], engines={"other": ScriptedEngine()})
    with pytest.raises(LMStudioModelLoadError, match="no engine 'scripted'"):
        emulator.start()


def test_unloading_with_an_invalid_name_is_rejected(me: Wire) -> None:
    for name in ("", "__proto__"):
        response = me.call("unloadModel", {"identifier": name})
        assert response["error"]["displayData"]["code"] == "generic.noModelMatchingQuery"
