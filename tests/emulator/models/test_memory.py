"""The memory of a device: which loads fit, and what the server estimates, rightly or wrongly."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations._support import environment
from lmstudio_integrations._support.environment import memory_of_machine
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.models.devices import GIB
from lmstudio_integrations.errors import LMStudioModelLoadError
from tests.emulator.bare_client import STACK, Wire, load_stack, wire

MIB = 1024**2
MODELS = [
    {"key": "large", "memory_gib": 9},
    {"key": "small", "memory_gib": 3, "kib_per_token": 1024},
    {"key": "underestimated", "memory_gib": 9, "kib_per_token": 0, "estimate_factor": 0.5},
    {"key": "overestimated", "memory_gib": 9, "kib_per_token": 0, "estimate_factor": 2},
    {"key": "on-disk", "size_bytes": 2 * GIB, "kib_per_token": 0},
    {"key": "stuck", "memory_gib": 9, "rule": [{"when": {"load": True}, "then": [{"fault": "stall"}]}]},
    {"key": "failing", "memory_gib": 9, "rule": [{"when": {"load": True}, "then": [{"error": "Bad"}]}]},
]


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator(catalog={"memory_gib": 16, "model": MODELS}) as running:
        yield running


def states(server: Emulator) -> list[tuple[str, str]]:
    return [(load.key, load.state) for load in server.loads]


def cause(packets: list[dict[str, Any]]) -> str:
    assert packets[-1]["type"] == "error", packets
    return str(packets[-1]["error"]["cause"])


NO_ROOM = (
    "Model loading was stopped due to insufficient system resources. Under the current settings, this model requires "
    "approximately 9.19 GB of memory, and continuing to load it would likely overload your system and cause it to "
    "freeze. If you think this is incorrect, you can adjust the model loading guardrails in settings."
)


def test_what_does_not_fit_beside_the_others_fails_as_on_a_real_server(server: Emulator, me: Wire) -> None:
    server.load("large")
    packets = me.stream("loadModel", {"modelKey": "large", "loadConfigStack": STACK})
    assert [packet["type"] for packet in packets] == ["resolved", "error"]
    assert cause(packets) == NO_ROOM
    assert packets[-1]["error"]["title"] == "Failed to load model"
    assert states(server) == [("large", "loaded"), ("large", "failed")]
    with pytest.raises(LMStudioModelLoadError, match=r"approximately 9\.19 GB"):
        server.load("large")


@pytest.mark.parametrize(("context_length", "fits"), [(13 * 1024, True), (13 * 1024 + 1, False)])
def test_the_context_takes_memory(me: Wire, context_length: int, fits: bool) -> None:
    parameter = {"modelKey": "small", "loadConfigStack": load_stack(contextLength=context_length)}
    memory = me.result("estimateModelUsage", parameter)["memory"]
    assert (memory["modelBytes"], memory["contextBytes"]) == (3 * GIB, context_length * MIB)
    assert memory["totalBytes"] == memory["modelBytes"] + memory["contextBytes"]
    assert (me.stream("loadModel", parameter)[-1]["type"] == "success") is fits


def test_a_load_in_progress_takes_memory_until_it_ends(server: Emulator, me: Wire) -> None:
    channel = me.open("loadModel", {"modelKey": "stuck", "loadConfigStack": STACK})
    assert [me.receive()["message"]["type"] for _ in range(2)] == ["resolved", "progress"]
    with wire(server) as other:
        parameter = {"modelKey": "large", "loadConfigStack": STACK}
        assert cause(other.stream("loadModel", parameter)) == NO_ROOM
        me.send(channel, {"type": "cancel"})
        list(me.packets(channel))
        assert other.load("large")
    assert states(server) == [("stuck", "cancelled"), ("large", "failed"), ("large", "loaded")]


def test_unloading_and_failing_free_memory(server: Emulator, me: Wire) -> None:
    for _ in range(2):
        assert me.stream("loadModel", {"modelKey": "failing", "loadConfigStack": STACK})[-1]["error"]["title"] == "Bad"
        me.load("large")
        me.result("unloadModel", {"identifier": "large"})


def test_a_just_in_time_load_evicts_before_it_may_fail(server: Emulator, me: Wire) -> None:
    me.get("large")
    me.load("on-disk")
    packets = me.get("small", loadConfigStack=load_stack(contextLength=11 * 1024 + 1))
    assert [packet["type"] for packet in packets] == ["unloadingOtherJITModel", "startLoading", "error"]
    assert "requires approximately 14.00 GB of memory" in cause(packets)
    assert states(server) == [("large", "evicted"), ("on-disk", "loaded"), ("small", "failed")]
    assert me.get("small", loadConfigStack=load_stack(contextLength=11 * 1024))[-1]["type"] == "loadSuccess"


@pytest.mark.parametrize(
    ("key", "loaded", "said", "passes"),
    [
        ("underestimated", (), 4.5, True),
        ("underestimated", ("large",), 4.5, True),  # 9.19 + 4.5: the load fails all the same
        ("overestimated", (), 18, False),  # the load succeeds
        ("on-disk", ("overestimated",), 2, False),  # 18 GiB of 16 are said to be in use
        ("on-disk", ("large",), 2, True),
    ],
)
def test_guardrails_follow_the_estimates(
    server: Emulator, me: Wire, key: str, loaded: tuple[str, ...], said: float, passes: bool
) -> None:
    for each in loaded:
        server.load(each)
    estimate = me.result("estimateModelUsage", {"modelKey": key, "loadConfigStack": STACK})
    assert estimate["memory"]["totalBytes"] == said * GIB
    assert estimate["passesGuardrails"] is passes


def test_without_a_memory_everything_fits() -> None:
    with Emulator([{"key": "huge", "memory_gib": 10**6}]) as server, wire(server) as me:
        me.load("huge")
        assert me.result("estimateModelUsage", {"modelKey": "huge", "loadConfigStack": STACK})["passesGuardrails"]


def test_a_survey_says_how_much_memory_there_is() -> None:
    for catalog, memory in (({"memory_gib": 1.5}, int(1.5 * GIB)), ({}, memory_of_machine())):
        with Emulator(catalog=catalog) as server, wire(server, "runtime") as me:
            (engine,) = me.result("surveyHardware")["engines"]
        assert engine["name"] == "scripted"
        assert engine["memoryInfo"] == {"ramCapacity": memory, "vramCapacity": 0, "totalMemory": memory}
        assert engine["compatibility"] == {"status": "compatible"}
        assert engine["hardwareSurvey"]["gpuSurveyResult"]["result"]["code"] == "noDevicesFound"
    with Emulator(catalog={}) as server, wire(server, "runtime") as me:
        none = me.result("surveyHardware", {"type": "custom", "engines": [{"name": "other", "version": "1"}]})
    assert (none["status"], none["engines"]) == ("noCompatibleBackends", [])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems report it in another way")
def test_the_memory_of_a_container_is_that_of_its_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    group = tmp_path / "memory.max"
    monkeypatch.setattr(environment, "_CONTROL_GROUP", group)
    whole = memory_of_machine()
    assert whole > 1_000_000
    for text, expected in (("max\n", whole), ("4000\n", 4000)):
        group.write_text(text)
        assert memory_of_machine() == expected
