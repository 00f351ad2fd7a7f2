"""What a recording tells of its models is the response to a client that asks for it in another way."""

from typing import Any

import pytest

from lmstudio_integrations.emulator.testing.cassettes.cassette import ABSENT, Event, Interaction, Request
from lmstudio_integrations.emulator.testing.cassettes.instances import RecordedInstances

MINE = {"type": "llm", "modelKey": "chat", "identifier": "mine", "instanceReference": "r1", "vision": True}
OTHER = {"type": "llm", "modelKey": "other", "identifier": "other", "instanceReference": "r2", "vision": False}
VECTORS = {"type": "embedding", "modelKey": "vectors", "identifier": "vectors", "instanceReference": "r3"}
CONFIG = {"fields": [{"key": "llm.load.contextLength", "value": 1000}]}


def recorded(namespace: str, endpoint: str, parameter: Any, *packets: Any) -> Interaction:
    events = [*(Event("received", 0, packet) for packet in packets), Event("closed", 0)]
    return Interaction(1, 0, "channel", namespace, endpoint, parameter, events)


INSTANCES = RecordedInstances(
    [
        recorded("llm", "loadModel", {"modelKey": "chat"}, {"type": "success", "info": MINE | {"vision": False}}),
        recorded("llm", "getOrLoad", {"identifier": "other"}, {"type": "loadSuccess", "info": OTHER}),
        recorded("llm", "predict", {}, {"type": "success", "modelInfo": MINE, "loadModelConfig": CONFIG}),
        Interaction(4, 0, "call", "embedding", "listLoaded", ABSENT, [Event("result", 0, [VECTORS])]),
    ]
)


def query(**members: Any) -> dict[str, Any]:
    return {"specifier": {"type": "query", "query": members}, "throwIfNotFound": True}


def reference(name: str) -> dict[str, Any]:
    return {"specifier": {"type": "instanceReference", "instanceReference": name}}


@pytest.mark.parametrize(
    ("namespace", "endpoint", "parameter", "expected"),
    [
        ("llm", "listLoaded", ABSENT, [MINE, OTHER]),
        ("embedding", "getModelInfo", query(), VECTORS),
        ("llm", "getModelInfo", query(identifier="mine"), MINE),
        ("llm", "getModelInfo", query(identifier="chat"), MINE),
        ("llm", "getModelInfo", query(vision=False), OTHER),
        ("llm", "getModelInfo", reference("r2"), OTHER),
        ("llm", "getLoadConfig", reference("r1"), CONFIG),
        ("llm", "unloadModel", {"identifier": "mine"}, ABSENT),
    ],
)
def test_a_call_gets_what_the_recording_tells(namespace: str, endpoint: str, parameter: Any, expected: Any) -> None:
    response = INSTANCES.response(Request(namespace, endpoint, parameter))
    assert response is not None
    assert response.kind == "call"
    assert response.events == [Event("result", 0, expected)]


def test_a_model_that_was_not_loaded_in_this_way_is_loaded_already() -> None:
    response = INSTANCES.response(Request("llm", "getOrLoad", {"identifier": "mine"}))
    assert response is not None
    assert response.kind == "channel"
    assert list(response.packets()) == [{"type": "alreadyLoaded", "info": MINE}]
    assert response.end == Event("closed", 0)


@pytest.mark.parametrize(
    ("namespace", "endpoint", "parameter"),
    [
        ("llm", "getModelInfo", query(identifier="vectors")),  # of the other kind
        ("llm", "getModelInfo", query(identifier="none")),
        ("llm", "getModelInfo", reference("none")),
        ("llm", "getModelInfo", ABSENT),
        ("llm", "getModelInfo", {"specifier": {"type": "query", "query": None}}),
        ("llm", "getLoadConfig", reference("r2")),  # no response tells its settings
        ("llm", "unloadModel", {"identifier": "none"}),
        ("llm", "getOrLoad", {"identifier": "other"}),  # recorded, so with other settings
        ("llm", "getOrLoad", {"identifier": "none"}),
        ("llm", "predict", query(identifier="mine")),
        ("system", "listLoaded", ABSENT),
        ("system", "version", ABSENT),
    ],
)
def test_what_the_recording_does_not_tell_stays_unknown(namespace: str, endpoint: str, parameter: Any) -> None:
    assert INSTANCES.response(Request(namespace, endpoint, parameter)) is None
