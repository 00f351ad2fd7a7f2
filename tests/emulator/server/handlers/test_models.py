"""The wire form of models, and endpoints about loaded ones: states, settings, tokens, templates."""

import threading

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.base import ModelMetadata
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine
from lmstudio_integrations.types.config import ModelKind
from tests.emulator.bare_client import STACK, TIMEOUT, Wire, named, prediction_request, wire


class SlowHeaders(ScriptedEngine):
    """An engine that reads metadata when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.go_on = threading.Event(), threading.Event()

    def metadata(self, weights: str | None, kind: ModelKind) -> ModelMetadata:
        self.reading.set()
        assert self.go_on.wait(TIMEOUT)
        return super().metadata(weights, kind)


def test_reading_headers_does_not_block_others() -> None:
    engine = SlowHeaders()
    server = Emulator(["a", "b"], engines={"scripted": engine})
    with server, wire(server, "system") as slowed, wire(server) as other:
        slowed.send_frame({"type": "rpcCall", "endpoint": "listDownloadedModels", "callId": 1})
        assert engine.reading.wait(TIMEOUT)
        assert other.result("listLoaded") == []
        engine.go_on.set()
        assert [info["modelKey"] for info in slowed.receive()["result"]] == ["a", "b"]


def test_default_settings_are_returned(server: Emulator, me: Wire) -> None:
    fields = me.result("getBasePredictionConfig", {"specifier": named("chat")})["fields"]
    assert {"key": "llm.prediction.temperature", "value": 0.8} in fields
    with wire(server, "embedding") as other:
        assert other.result("getBasePredictionConfig", {"specifier": named("vectors")}) == {"fields": []}


@pytest.mark.parametrize("throws", [True, False])
def test_the_state_of_nothing_is_an_error(me: Wire, throws: bool) -> None:
    # The result has no form for "not found" (docs/protocol.md#get-instance-processing-state).
    parameter = {"specifier": named("nothing"), "throwIfNotFound": throws}
    error = me.rpc_error("getInstanceProcessingState", parameter)
    assert error["displayData"]["code"] == "generic.noModelMatchingQuery"


@pytest.mark.leaf("devices")
def test_a_memory_estimate_is_of_the_context_that_a_load_would_have() -> None:
    with Emulator([ModelEntry(key="short", max_context_length=64)]) as server, wire(server) as me:
        memory = me.result("estimateModelUsage", {"modelKey": "short", "loadConfigStack": STACK})["memory"]
        context_length = me.load("short")["contextLength"]
    assert context_length == 64
    assert memory["contextBytes"] == 48 * 1024 * context_length


def test_added_tokens_of_an_embedding_model_do_not_count(server: Emulator) -> None:
    with wire(server, "embedding") as me:
        for text, count in (("one two", 2), ("", 0)):
            parameter = {"specifier": named("vectors"), "inputString": text}
            assert len(me.result("tokenize", parameter)["tokens"]) == count + 2
            assert me.result("countTokens", parameter) == {"tokenCount": count}


def test_a_template_takes_files_that_are_not_there_and_two_system_messages(me: Wire) -> None:
    file = {"type": "file", "name": "x.txt", "identifier": "nowhere", "sizeBytes": 1, "fileType": "text/plain"}
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, file]},
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
    ]
    conversation = {"history": {"messages": messages}, "predictionConfigStack": STACK}
    formatted = me.result("applyPromptTemplate", {"specifier": named("chat"), "opts": {}} | conversation)["formatted"]
    assert all(text in formatted for text in ("Be brief.", "Hello", "Be kind."))


NO_DRAFT_MODEL = {"title": 'Cannot find model "nothing"', "rootTitle": 'Cannot find model "nothing"'}
"""Without a code: for one, the official SDKs would print a text of their own (docs/protocol.md#recorded-answers)."""


def test_a_draft_model_must_exist(me: Wire) -> None:
    preload = {"specifier": named("chat")}
    assert me.call("preloadDraftModel", preload | {"draftModelKey": "blind"}) == {"type": "rpcResult"}
    assert me.rpc_error("preloadDraftModel", preload | {"draftModelKey": "nothing"}) == NO_DRAFT_MODEL
    fields = {"speculativeDecoding.draftModel": "nothing"}
    assert me.stream("predict", prediction_request("chat", fields=fields))[-1]["error"] == NO_DRAFT_MODEL
