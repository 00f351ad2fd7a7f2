"""Linked devices: where a request loads and finds models, and what happens when a device goes away."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ManualClock
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine
from lmstudio_integrations.errors import LMStudioModelLoadError, LMStudioValueError
from tests.emulator.bare_client import STACK, TIMEOUT, Wire, named, prediction_request, wire
from tests.emulator.models.registry_models import STUCK, WAITING

pytestmark = pytest.mark.leaf("devices")

MODELS = [
    {"key": "everywhere", "rule": [WAITING]},
    {"key": "far", "downloaded": False},
    {"key": "near"},
    {"key": "vectors", "kind": "embedding"},
    {"key": "stuck", "rule": [STUCK]},
    {"key": "paced", "load_seconds": 10, "tokens_per_second": 5},
]
LAPTOP: dict[str, Any] = {
    "name": "laptop",
    "identifier": "id-laptop",
    "models": ["everywhere", "far", "vectors", "stuck"],
}
STUDIO: dict[str, Any] = {"name": "studio", "memory_gib": 1, "speed": 2, "models": ["everywhere", "far", "paced"]}
AWAY: dict[str, Any] = {"name": "away", "connected": False}
DEVICES = [LAPTOP, STUDIO, AWAY]
NOTHING: dict[str, Any] = {}


def on(device: str | None) -> dict[str, Any]:
    return {"deviceIdentifier": device}


@pytest.fixture
def server(clock: ManualClock) -> Iterator[Emulator]:
    with Emulator(catalog={"model": MODELS, "device": DEVICES}, clock=clock) as running:
        yield running


@pytest.fixture
def preferring() -> Iterator[Emulator]:
    devices = [LAPTOP, STUDIO | {"preferred": True}]
    with Emulator(catalog={"model": MODELS, "device": devices}) as running:
        yield running


def found(server: Emulator) -> list[tuple[str, str | None]]:
    return [(info.identifier, info.device_identifier) for info in server.loaded()]


def states(server: Emulator) -> list[tuple[str, str | None, str]]:
    return [(load.key, load.device, load.state) for load in server.loads]


PLACES = [
    ("everywhere", NOTHING, None),
    ("everywhere", on("id-laptop"), "id-laptop"),
    ("far", NOTHING, "id-laptop"),
    ("far", on("studio"), "studio"),
    ("near", NOTHING, None),
]
PREFERRED = [
    ("everywhere", NOTHING, "studio"),
    ("everywhere", on(None), None),
    ("near", NOTHING, None),
]


def test_a_model_is_loaded_where_the_request_says(server: Emulator, me: Wire) -> None:
    for key, where, device in PLACES:
        packets = me.stream("loadModel", {"modelKey": key, "loadConfigStack": STACK, **where})
        assert "ambiguous" not in packets[0], "it is the same model everywhere"
        info = packets[-1]["info"]
        assert (info["identifier"], info["deviceIdentifier"]) == (key, device)
        assert found(server) == [(key, device)]
        assert server.loads[-1].device == {"id-laptop": "laptop"}.get(str(device), device)
        me.result("unloadModel", {"identifier": key, **on(device)})
        assert me.get(key, **where)[-1]["info"]["deviceIdentifier"] == device
        me.result("unloadModel", {"identifier": key})


def test_the_preferred_device_comes_first(preferring: Emulator) -> None:
    with wire(preferring) as me:
        for key, where, device in PREFERRED:
            assert me.load(key, **where)["deviceIdentifier"] == device
    assert preferring.load("far").device_identifier == "studio"
    preferring.unload("everywhere")
    assert found(preferring) == [("everywhere", None), ("near", None), ("far", "studio")]


@pytest.mark.parametrize(
    ("key", "where", "title"),
    [
        ("near", on("studio"), 'Cannot find a model with the key or path "near"'),
        ("far", on(None), 'Cannot find a model with the key or path "far"'),
        ("vectors", on("id-laptop"), 'Model "scripted/vectors" is not an LLM'),
        ("near", on("laptop"), 'The device "laptop" is not connected'),  # its name, not its identifier
        ("near", on("away"), 'The device "away" is not connected'),
    ],
)
def test_a_device_that_cannot_do_it_is_an_error(server: Emulator, key: str, where: dict[str, Any], title: str) -> None:
    specifier = {"type": "query", "query": {"identifier": key, **where}}
    with wire(server) as me:
        requests = [
            me.stream("loadModel", {"modelKey": key, "loadConfigStack": STACK, **where})[-1]["error"],
            me.get(key, **where)[-1]["error"],
            me.rpc_error("estimateModelUsage", {"modelKey": key, "loadConfigStack": STACK, **where}),
        ]
        assert {error["title"] for error in requests} == {title}
        lookups = [
            me.rpc_error("unloadModel", {"identifier": key, **where}),
            me.rpc_error("tokenize", {"specifier": specifier, "inputString": "x"}),
            me.rpc_error("getModelInfo", {"specifier": specifier, "throwIfNotFound": True}),
        ]
    if title.startswith("The device"):
        assert {error["title"] for error in lookups} == {title}
        causes = {error["cause"] for error in (*requests, *lookups)}
        assert causes == {"This server knows id-laptop, studio, away (disconnected)."}
    else:
        assert {error["displayData"]["code"] for error in lookups} == {"generic.noModelMatchingQuery"}


def test_an_identifier_may_be_loaded_on_each_device(server: Emulator, me: Wire) -> None:
    for device in ("studio", None, "id-laptop"):
        assert me.load("everywhere", identifier="mine", **on(device))["identifier"] == "mine"
    assert me.load("everywhere", **on("studio"))["identifier"] == "everywhere"
    assert me.load("everywhere", **on("studio"))["identifier"] == "everywhere:2"
    again = {"modelKey": "everywhere", "identifier": "mine", "loadConfigStack": STACK, **on("studio")}
    assert "already exists" in me.stream("loadModel", again)[-1]["error"]["title"]

    def device_of(**query: Any) -> Any:
        specifier = {"type": "query", "query": {"identifier": "mine", **query}}
        return me.result("getModelInfo", {"specifier": specifier, "throwIfNotFound": True})["deviceIdentifier"]

    assert [device_of(**where) for where in (NOTHING, on(None), on("studio"))] == [None, None, "studio"]
    me.result("unloadModel", {"identifier": "mine"})
    assert device_of() == "id-laptop"
    here = {"type": "query", "query": {"identifier": "mine", **on(None)}}
    assert me.result("getModelInfo", {"specifier": here, "throwIfNotFound": False}) is None
    me.result("unloadModel", {"identifier": "mine", **on("studio")})
    assert [each for each in found(server) if each[0] == "mine"] == [("mine", "id-laptop")]
    assert [packet["type"] for packet in me.get("mine")] == ["alreadyLoaded"]
    assert me.get("mine", **on(None))[-1]["error"]["displayData"]["code"] == "generic.pathNotFound"


def test_an_exact_identifier_comes_before_the_order_of_devices(preferring: Emulator) -> None:
    with wire(preferring) as me:
        me.load("everywhere", identifier="other", **on("studio"))
        me.load("everywhere", **on(None))
        assert me.get("everywhere")[-1]["info"]["deviceIdentifier"] is None
        me.result("unloadModel", {"identifier": "everywhere"})
        assert found(preferring) == [("other", "studio")]


def test_lists_have_the_models_of_connected_devices(server: Emulator, me: Wire) -> None:
    me.load("everywhere", **on("studio"))
    me.load("near")
    listed = [(info["identifier"], info["deviceIdentifier"]) for info in me.result("listLoaded")]
    assert listed == [("everywhere", "studio"), ("near", None)]
    with wire(server, "system") as system:
        downloaded = [(info["modelKey"], info["deviceIdentifier"]) for info in system.result("listDownloadedModels")]
    here = [(key, None) for key in ("everywhere", "near", "vectors", "stuck", "paced")]
    laptop = [(key, "id-laptop") for key in ("everywhere", "far", "vectors", "stuck")]
    assert downloaded == here + laptop + [(key, "studio") for key in ("everywhere", "far", "paced")]


def test_a_device_has_all_models_by_default_and_a_memory_of_its_own() -> None:
    models = [{"key": "big", "memory_gib": 3, "downloaded": False}]
    devices = [{"name": "small", "memory_gib": 1}, {"name": "large", "memory_gib": 4}, {"name": "endless"}]
    with Emulator(catalog={"memory_gib": 1, "model": models, "device": devices}) as server, wire(server) as me:
        for device, fits in (("small", False), ("large", True), ("endless", True)):
            parameter = {"modelKey": "big", "loadConfigStack": STACK, **on(device)}
            assert me.result("estimateModelUsage", parameter)["passesGuardrails"] is fits
            ends = [me.stream("loadModel", parameter)[-1]["type"] for _ in range(2)]
            assert ends == ["success" if fits else "error", "success" if device == "endless" else "error"]


@pytest.mark.parametrize(("device", "seconds"), [(None, 10), ("studio", 5)])
def test_a_fast_device_loads_and_writes_faster(device: str | None, seconds: float) -> None:
    waits: list[float] = []

    async def sleep(wait: float) -> None:
        waits.append(wait)

    engines = {"scripted": ScriptedEngine(sleep)}
    with Emulator(catalog={"model": MODELS, "device": DEVICES}, engines=engines) as server, wire(server) as me:
        me.load("paced", **on(device))
        assert sum(waits) == pytest.approx(seconds)
        waits.clear()
        me.stream("predict", prediction_request("paced"))
        assert set(waits) == {0.2 * seconds / 10}


def test_each_device_evicts_its_own_models(server: Emulator, me: Wire) -> None:
    me.get("everywhere", **on("studio"))
    me.get("everywhere", **on("id-laptop"))
    me.get("near")
    assert found(server) == [("everywhere", "studio"), ("everywhere", "id-laptop"), ("near", None)]
    packets = me.get("far", **on("studio"))
    assert packets[0]["type"] == "unloadingOtherJITModel"
    assert packets[0]["info"]["deviceIdentifier"] == packets[1]["info"]["deviceIdentifier"] == "studio"
    assert states(server)[0] == ("everywhere", "studio", "evicted")
    assert found(server) == [("everywhere", "id-laptop"), ("near", None), ("far", "studio")]


def test_each_device_has_idle_times_and_a_memory_of_its_own(clock: ManualClock) -> None:
    devices = [{**device, "memory_gib": 0.3} for device in DEVICES]
    catalog = {"model": MODELS, "device": devices, "memory_gib": 0.3}
    with Emulator(catalog=catalog, clock=clock) as server, wire(server) as me:
        me.load("everywhere", ttlMs=1000, **on("studio"))
        me.load("everywhere")
        error = me.stream("loadModel", {"modelKey": "far", "loadConfigStack": STACK, **on("studio")})[-1]["error"]
        assert "insufficient system resources" in error["cause"]
        clock.advance(1)
        server.wait_for(lambda: found(server) == [("everywhere", None)], TIMEOUT)
        assert me.load("far", **on("studio"))


def test_the_log_says_on_which_device(me: Wire, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lmstudio_integrations.emulator.models.registry")
    me.load("everywhere", **on("id-laptop"))
    me.load("near")
    assert caplog.messages == ["everywhere on laptop: loaded", "near: loaded"]


def test_a_draft_model_must_be_on_the_same_device(me: Wire) -> None:
    me.load("everywhere", **on("studio"))
    preload = {"specifier": named("everywhere")}
    assert "near" in me.rpc_error("preloadDraftModel", preload | {"draftModelKey": "near"})["title"]
    assert me.result("preloadDraftModel", preload | {"draftModelKey": "far"}) is None
    ends = [
        me.stream("predict", prediction_request("everywhere", fields={"speculativeDecoding.draftModel": key}))[-1]
        for key in ("near", "far")
    ]
    assert [end["type"] for end in ends] == ["error", "success"]


# A device goes away


def test_predictions_on_a_lost_device_end_as_when_their_model_is_unloaded(server: Emulator, me: Wire) -> None:
    me.load("near")
    me.load("everywhere", **on("studio"))
    channel = me.open("predict", prediction_request("everywhere", "Wait"))
    server.wait_for(lambda: any(each.fragments for each in server.predictions), TIMEOUT)
    server.disconnect_device("studio")
    assert list(me.packets(channel))[-1]["stats"]["stopReason"] == "modelUnloaded"
    assert found(server) == [("near", None)]
    assert states(server) == [("near", None, "loaded"), ("everywhere", "studio", "unloaded")]
    error = me.rpc_error("tokenize", {"specifier": named("everywhere"), "inputString": "x"})
    assert error["displayData"]["code"] == "generic.noModelMatchingQuery"
    server.connect_device("studio")
    assert found(server) == [("near", None)]
    assert me.load("everywhere", **on("studio"))["identifier"] == "everywhere"


def test_loads_on_a_lost_device_fail_with_those_that_wait_for_them(server: Emulator, me: Wire) -> None:
    there = {"loadConfigStack": STACK, **on("id-laptop")}
    with wire(server) as other, wire(server) as third:
        explicit = me.open("loadModel", {"modelKey": "stuck", **there})
        just_in_time = other.open("getOrLoad", {"identifier": "stuck", **there})
        assert [socket.receive()["message"]["type"] for socket in (me, other)] == ["resolved", "startLoading"]
        waiting = third.open("getOrLoad", {"identifier": "far", **there})
        here = third.open("getOrLoad", {"identifier": "stuck", "loadConfigStack": STACK})
        assert third.receive()["message"]["type"] == "startLoading", "each device loads for itself"
        third.send(here, {"type": "cancel"})
        assert [packet["type"] for packet in third.packets(here)][-1] == "error"
        assert third.result("listLoaded") == []  # so the request has arrived
        server.disconnect_device("laptop")
        for socket, channel in ((me, explicit), (other, just_in_time), (third, waiting)):
            assert list(socket.packets(channel))[-1]["error"]["title"] == 'The device "laptop" has disconnected'
    assert {state for _, device, state in states(server) if device == "laptop"} == {"failed"}
    assert me.get("everywhere", **on("id-laptop"))[-1]["error"]["title"] == 'The device "id-laptop" is not connected'


def test_a_lost_device_is_passed_over(preferring: Emulator) -> None:
    with wire(preferring) as me, wire(preferring, "system") as system:
        preferring.disconnect_device("studio")
        assert me.get("everywhere")[-1]["info"]["deviceIdentifier"] is None
        assert me.get("far")[-1]["info"]["deviceIdentifier"] == "id-laptop"
        assert "studio" not in {info["deviceIdentifier"] for info in system.result("listDownloadedModels")}


def test_the_status_of_lm_link_has_the_devices(server: Emulator, preferring: Emulator) -> None:
    with wire(server, "repository") as me:
        server.disconnect_device("studio")
        server.connect_device("away")
        status = me.result("lmLinkStatus")
    assert isinstance(status.pop("deviceName"), str)
    peers = [("id-laptop", "laptop", "connected"), ("studio", "studio", "disconnected"), ("away", "away", "connected")]
    names = ("deviceIdentifier", "deviceName", "status")
    assert status == {
        "status": "online",
        "issues": [],
        "peers": [dict(zip(names, peer, strict=True)) for peer in peers],
        "deviceIdentifier": "emulator",
    }
    with wire(preferring, "repository") as me:
        assert me.result("lmLinkStatus")["preferredDeviceIdentifier"] == "studio"


def test_only_known_devices_can_go_away(server: Emulator) -> None:
    for change in (server.disconnect_device, server.connect_device):
        with pytest.raises(LMStudioValueError, match="no device 'phone'; it has 'laptop', 'studio', 'away'"):
            change("phone")
    with Emulator(["m"]) as without, pytest.raises(LMStudioValueError, match="no device 'phone'; it has none"):
        without.connect_device("phone")


def test_a_model_on_an_absent_device_cannot_be_loaded_at_the_start() -> None:
    catalog = {"model": [{"key": "far", "downloaded": False, "preload": True}], "device": [AWAY]}
    with pytest.raises(LMStudioModelLoadError, match="Cannot find a model"):
        Emulator(catalog=catalog).start()
