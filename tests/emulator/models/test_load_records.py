"""Each load of a model can be seen: what was loaded, how, and what became of it."""

import dataclasses
import json
from collections.abc import Iterator

import pytest

from lmstudio_integrations.emulator import Emulator, Limits, ManualClock, ModelEntry
from lmstudio_integrations.errors import LMStudioModelLoadError
from tests.emulator.bare_client import STACK, Wire, prediction_request, wire

CRASH = {"when": {"last": "^Crash"}, "then": [{"fault": "crash"}]}
STUCK = {"when": {"load": True}, "then": [{"fault": "stall"}]}
LARGE = {"when": {"load": True}, "then": [{"fault": "out_of_memory"}]}
MODELS = [
    ModelEntry(key="chat", rules=(CRASH,)),
    ModelEntry(key="vectors", kind="embedding"),
    ModelEntry(key="stuck", rules=(STUCK,)),
    ModelEntry(key="large", rules=(LARGE,)),
]


@pytest.fixture
def server(clock: ManualClock) -> Iterator[Emulator]:
    with Emulator(MODELS, clock=clock) as running:
        yield running


def states(server: Emulator) -> list[tuple[str, str, str]]:
    return [(load.identifier, load.mode, load.state) for load in server.loads]


def test_loads_are_recorded_in_order_with_evictions(server: Emulator, me: Wire) -> None:
    me.load("chat", identifier="mine")
    me.get("vectors-unknown")
    with wire(server, "embedding") as embedding:
        embedding.get("vectors")
        me.get("stuck-unknown")
        server.unload("mine")
        me.get("chat")
        embedding.get("vectors")
    assert states(server) == [
        ("mine", "explicit", "unloaded"),
        ("vectors", "just_in_time", "evicted"),
        ("chat", "just_in_time", "evicted"),
        ("vectors", "just_in_time", "loaded"),
    ]
    assert [load.key for load in server.loads] == ["chat", "vectors", "chat", "vectors"]


def test_a_model_that_is_loaded_already_is_no_load(server: Emulator, me: Wire) -> None:
    server.load("chat")
    me.get("chat")
    me.stream("loadModel", {"modelKey": "chat", "identifier": "chat", "loadConfigStack": STACK})
    assert states(server) == [("chat", "explicit", "loaded")]


def test_loads_at_the_start_are_recorded_and_all_end_with_the_server() -> None:
    with Emulator(MODELS, load=["chat"]) as server:
        assert states(server) == [("chat", "explicit", "loaded")]
    assert states(server) == [("chat", "explicit", "unloaded")]


def test_a_load_that_does_not_succeed_is_recorded(server: Emulator, me: Wire) -> None:
    with pytest.raises(LMStudioModelLoadError):
        server.load("large")
    channel = me.open("loadModel", {"modelKey": "stuck", "loadConfigStack": STACK})
    me.receive()
    assert states(server)[-1] == ("stuck", "explicit", "loading")
    me.send(channel, {"type": "cancel"})
    list(me.packets(channel))
    assert states(server) == [("large", "explicit", "failed"), ("stuck", "explicit", "cancelled")]


def test_an_expired_or_crashed_model_ends_its_load_record(server: Emulator, me: Wire, clock: ManualClock) -> None:
    me.get("chat", loadTtlMs=1000)
    clock.advance(1)
    server.wait_for(lambda: states(server) == [("chat", "just_in_time", "expired")])
    me.get("chat")
    me.stream("predict", prediction_request("chat", "Crash"))
    server.wait_for(lambda: states(server)[-1] == ("chat", "just_in_time", "crashed"))


def test_a_load_record_has_the_requested_settings(server: Emulator, me: Wire) -> None:
    fields = [
        {"key": "llm.load.contextLength", "value": 512},
        {"key": "llm.load.llama.tryMmap", "value": False},
        {"key": "llm.load.seed", "value": {"checked": False, "value": 0}},
        {"key": "llm.load.unheardOf", "value": 1},
    ]
    me.load("chat", loadConfigStack={"layers": [{"layerName": "apiOverride", "config": {"fields": fields}}]})
    (load,) = server.loads
    assert load.config == {"contextLength": 512, "tryMmap": False, "seed": False, "raw": {"llm.load.unheardOf": 1}}
    assert json.loads(json.dumps(dataclasses.asdict(load)))["key"] == "chat"


def test_load_records_are_limited() -> None:
    with Emulator(MODELS, limits=Limits(records=2)) as server:
        for number in range(3):
            server.load("chat", identifier=f"chat-{number}")
        assert [load.identifier for load in server.loads] == ["chat-1", "chat-2"]
