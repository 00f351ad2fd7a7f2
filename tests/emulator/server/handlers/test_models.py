"""The wire form of models, and endpoints about loaded ones."""

import threading
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.base import ModelMetadata
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine
from tests.emulator.bare_client import STACK, TIMEOUT, Wire, named, wire
from tests.emulator.server.handlers.models import INSTANCE, LIBRARY, LLM, OPTIONAL


@pytest.mark.parametrize("namespace", ["llm", "embedding"])
def test_instances_have_every_required_field(server: Emulator, namespace: str) -> None:
    with wire(server, namespace) as me:
        for info in me.result("listLoaded"):
            assert info.keys() - OPTIONAL == INSTANCE | (LLM if namespace == "llm" else set())
            assert {name for name, value in info.items() if value is None} == {
                "deviceIdentifier",
                "ttlMs",
                "lastUsedTime",
            }
            assert [type(info[name]) for name in ("sizeBytes", "maxContextLength", "contextLength")] == [int] * 3


def test_downloaded_models_are_listed_with_every_required_field(server: Emulator) -> None:
    with wire(server, "system") as me:
        infos = {info["modelKey"]: info for info in me.result("listDownloadedModels")}
    assert infos.keys() == {"chat", "blind", "vectors"}
    assert infos["vectors"].keys() - OPTIONAL == LIBRARY
    assert infos["blind"].keys() == LIBRARY | LLM | OPTIONAL
    assert infos["blind"]["quantization"] == {"name": "Q4_K_M", "bits": 4}
    assert infos["chat"]["architecture"] == "scripted"
    assert infos["chat"]["path"] == "scripted/chat"


def test_reading_headers_does_not_block_others(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on, metadata = threading.Event(), threading.Event(), ScriptedEngine.metadata

    def slow(*arguments: Any) -> ModelMetadata:
        reading.set()
        assert go_on.wait(TIMEOUT)
        return metadata(*arguments)

    monkeypatch.setattr(ScriptedEngine, "metadata", slow)
    with Emulator(["a", "b"]) as server, wire(server, "system") as slowed, wire(server) as other:
        slowed.send_frame({"type": "rpcCall", "endpoint": "listDownloadedModels", "callId": 1})
        assert reading.wait(TIMEOUT)
        assert other.result("listLoaded") == []
        go_on.set()
        assert [info["modelKey"] for info in slowed.receive()["result"]] == ["a", "b"]


def test_default_settings_and_memory_estimates_are_returned(server: Emulator, me: Wire) -> None:
    fields = me.result("getBasePredictionConfig", {"specifier": named("chat")})["fields"]
    assert {"key": "llm.prediction.temperature", "value": 0.8} in fields
    stack = {
        "layers": [{"layerName": "apiOverride", "config": {"fields": [{"key": "llm.load.contextLength", "value": 10}]}}]
    }
    small = me.result("estimateModelUsage", {"modelKey": "chat", "loadConfigStack": stack})["memory"]
    large = me.result("estimateModelUsage", {"modelKey": "chat", "loadConfigStack": STACK})["memory"]
    assert small["totalBytes"] == small["modelBytes"] + small["contextBytes"] < large["totalBytes"]
    with wire(server, "embedding") as other:
        assert other.result("getBasePredictionConfig", {"specifier": named("vectors")}) == {"fields": []}


@pytest.mark.parametrize("throws", [True, False])
def test_the_state_of_nothing_is_an_error(me: Wire, throws: bool) -> None:
    # The result has no form for "not found" (docs/protocol.md#get-instance-processing-state).
    parameter = {"specifier": named("nothing"), "throwIfNotFound": throws}
    error = me.rpc_error("getInstanceProcessingState", parameter)
    assert error["displayData"]["code"] == "generic.noModelMatchingQuery"
    assert (me.call("getModelInfo", parameter) == {"type": "rpcResult"}) is not throws


def test_a_memory_estimate_is_of_the_context_that_a_load_would_have() -> None:
    with Emulator([ModelEntry(key="short", max_context_length=64)]) as server, wire(server) as me:
        memory = me.result("estimateModelUsage", {"modelKey": "short", "loadConfigStack": STACK})["memory"]
        context_length = me.load("short")["contextLength"]
    assert context_length == 64
    assert memory["contextBytes"] == 48 * 1024 * context_length
