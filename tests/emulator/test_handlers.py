"""What the endpoints answer, field by field."""

import asyncio
import base64
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.emulator import Catalog, Emulator, ModelEntry, Preset, retrieval
from lmstudio_integrations.emulator.engines.base import EngineEvent, ModelMetadata
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine, ScriptedModel, engine
from lmstudio_integrations.emulator.weights import WeightsError
from lmstudio_integrations.types.results import ToolCallArguments, ToolCallName, ToolCallStart
from tests.emulator.wire import STACK, TIMEOUT, Wire, asking, named, stack, wire
from tests.requirements import proves

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n and more").decode()
TEXT = "The sky is blue.\n\nGrass is green.\n\nSnow is white.\n"

CHAT = ModelEntry(
    key="chat",
    aliases=("talk",),
    vision=True,
    rules=(
        {"when": {"tools": ["add"]}, "then": [{"tool": "add", "arguments": {"a": 1}, "id": "7"}]},
        {"when": {"image": True}, "then": [{"text": "A picture."}]},
        {"when": {"last": "^Wait"}, "then": [{"text": "One"}, {"fault": "stall"}]},
        {"when": {"last": "^Nothing"}, "then": []},
        {"when": {"last": "^Fail"}, "then": [{"error": "Bad", "code": "generic.missingRuntimeExtension"}]},
    ),
)
BLIND = ModelEntry(key="blind", params="1B", quantization=("Q4_K_M", 4))
VECTORS = ModelEntry(key="vectors", kind="embedding", embedding_length=8)
ABSENT = ModelEntry(key="absent", downloaded=False, display_name="Not here", size_bytes=10)
PRESET = Preset(
    identifier="@me/brief", name="Brief", fields={"llm.prediction.maxPredictedTokens": {"checked": True, "value": 1}}
)


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with three loaded models and one that is to be downloaded."""
    catalog = Catalog(models=(CHAT, BLIND, VECTORS, ABSENT), presets=(PRESET,))
    with Emulator(catalog=catalog, load=["chat", "blind", "vectors"]) as emulator:
        yield emulator


@pytest.fixture
def me(server: Emulator) -> Iterator[Wire]:
    """A socket for language models."""
    with wire(server) as opened:
        yield opened


@pytest.fixture
def files(server: Emulator) -> Iterator[Wire]:
    """A socket of the same client for files."""
    with wire(server, "files") as opened:
        yield opened


# Infos

LIBRARY = {
    "type",
    "modelKey",
    "format",
    "displayName",
    "publisher",
    "path",
    "sizeBytes",
    "indexedModelIdentifier",
    "deviceIdentifier",
    "maxContextLength",
}
INSTANCE = LIBRARY | {"identifier", "instanceReference", "ttlMs", "lastUsedTime", "contextLength"}
LLM = {"vision", "trainedForToolUse"}
OPTIONAL = {"paramsString", "architecture", "quantization"}


@proves("S-INFO-FIELDS", "S-INFO-INTS")
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


@proves("S-SYSTEM-DOWNLOADED")
def test_downloaded_models_are_listed_with_every_required_field(server: Emulator) -> None:
    with wire(server, "system") as me:
        infos = {info["modelKey"]: info for info in me.result("listDownloadedModels")}
    assert infos.keys() == {"chat", "blind", "vectors"}
    assert infos["vectors"].keys() - OPTIONAL == LIBRARY
    assert infos["blind"].keys() == LIBRARY | LLM | OPTIONAL
    assert infos["blind"]["quantization"] == {"name": "Q4_K_M", "bits": 4}
    assert infos["chat"]["architecture"] == "scripted"
    assert infos["chat"]["path"] == "scripted/chat"


def test_reading_headers_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on, metadata = threading.Event(), threading.Event(), ScriptedEngine.metadata

    def slow(*arguments: Any) -> ModelMetadata:
        reading.set()
        assert go_on.wait(TIMEOUT)
        return metadata(*arguments)

    monkeypatch.setattr(ScriptedEngine, "metadata", slow)
    with Emulator(["a", "b"]) as server, wire(server, "system") as slowed, wire(server) as other:
        slowed.say({"type": "rpcCall", "endpoint": "listDownloadedModels", "callId": 1})
        assert reading.wait(TIMEOUT)
        assert other.result("listLoaded") == []
        go_on.set()
        assert [info["modelKey"] for info in slowed.hear()["result"]] == ["a", "b"]


# Predictions


@proves("S-PREDICT-PROGRESS", "S-PREDICT-FRAGMENT", "S-PREDICT-SUCCESS", "S-PREDICT-STATS")
def test_a_prediction_has_every_packet_and_every_field(me: Wire) -> None:
    packets = me.stream("predict", asking("chat"))
    progress = [packet for packet in packets if packet["type"] == "promptProcessingProgress"]
    assert [packet["progress"] for packet in progress] == [0, 1]
    for packet in progress:
        total, *parts = (packet["details"][f"{name}TokenCount"] for name in ("totalPrompt", *PARTS))
        assert total == sum(parts)
    fragments = [packet["fragment"] for packet in packets if packet["type"] == "fragment"]
    for fragment in fragments:
        assert fragment.keys() == {"content", "tokensCount", "containsDrafted", "reasoningType", "isStructural"}
    end = packets[-1]
    assert end.keys() == {"type", "stats", "modelInfo", "loadModelConfig", "predictionConfig"}
    stats = end["stats"]
    assert stats["stopReason"] == "eosFound"
    assert stats["predictedTokensCount"] == len(fragments) + 1
    assert stats["totalTokensCount"] == stats["promptTokensCount"] + stats["predictedTokensCount"]
    assert stats["timeToFirstTokenSec"] <= stats["totalTimeSec"]
    assert end["modelInfo"].keys() - OPTIONAL == INSTANCE | LLM
    assert end["modelInfo"]["lastUsedTime"] is None
    assert me.result("listLoaded")[0]["lastUsedTime"] is not None


PARTS = ("cached", "processedPrompt", "unprocessedPrompt")


def test_a_prediction_without_a_token_has_its_progress_all_the_same(me: Wire) -> None:
    packets = me.stream("predict", asking("chat", "Nothing"))
    assert [packet.get("progress") for packet in packets] == [0, 1, None]
    assert packets[-1]["stats"]["stopReason"] == "eosFound"
    assert "tokensPerSecond" not in packets[-1]["stats"]
    assert "timeToFirstTokenSec" not in packets[-1]["stats"]


@proves("S-PREDICT-CANCEL")
def test_a_cancelled_prediction_ends_with_success(server: Emulator, me: Wire) -> None:
    channel = me.open("predict", asking("chat", "Wait"))
    for _ in range(3):
        me.hear()
    me.send(channel, {"type": "cancel"})
    (end,) = me.packets(channel)
    assert end["stats"]["stopReason"] == "userStopped"
    assert end["stats"]["predictedTokensCount"] == 1
    assert server.predictions[0].stop_reason == "userStopped"


@proves("S-PREDICT-TOOLS")
def test_a_tool_call_has_one_start_and_one_end(me: Wire) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    packets = me.stream("predict", asking("chat", fields={"tools": {"type": "toolArray", "tools": [tool]}}))
    kinds = [packet["type"] for packet in packets]
    assert kinds.count("toolCallGenerationStart") == kinds.count("toolCallGenerationEnd") == 1
    end = packets[kinds.index("toolCallGenerationEnd")]
    assert end["toolCallRequest"] == {"type": "function", "id": "7", "name": "add", "arguments": {"a": 1}}


@proves("S-PREDICT-TOOLS-STOPPED")
def test_a_tool_call_that_is_stopped_fails_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def call(*_: object) -> AsyncIterator[EngineEvent]:
        for event in (ToolCallStart("7"), ToolCallName("add"), ToolCallArguments('{"a"')):
            yield event
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(ScriptedModel, "generate", call)
    with Emulator(["m"], load=["m"]) as server, wire(server) as me:
        channel = me.open("predict", asking("m"))
        for _ in range(5):
            me.hear()
        me.send(channel, {"type": "cancel"})
        failed, end = me.packets(channel)
        assert (failed["type"], failed["rawContent"]) == ("toolCallGenerationFailed", '{"a"')
        assert end["stats"]["stopReason"] == "userStopped"
        assert end["stats"]["predictedTokensCount"] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"toolChoice": {"type": "generic", "mode": "required"}, "tools": {"type": "toolArray", "tools": "TOOLS"}},
        {"tools": {"type": "toolArray", "force": True, "tools": "TOOLS"}},
    ],
    ids=["2026", "2025"],
)
def test_a_tool_can_be_required_in_either_way(me: Wire, fields: dict[str, Any]) -> None:
    tool = {"type": "function", "function": {"name": "other", "parameters": {"type": "object", "properties": {}}}}
    fields = fields | {"tools": fields["tools"] | {"tools": [tool]}}
    kinds = [packet["type"] for packet in me.stream("predict", asking("blind", fields=fields))]
    assert "toolCallGenerationEnd" in kinds


def test_a_tool_that_is_none_is_refused(me: Wire) -> None:
    packets = me.stream("predict", asking("chat", fields={"tools": {"type": "toolArray", "tools": [{"name": "x"}]}}))
    assert "tool" in packets[-1]["error"]["title"]


def test_an_error_of_the_model_ends_its_channel(server: Emulator, me: Wire) -> None:
    (packet,) = me.stream("predict", asking("chat", "Fail"))
    assert packet["error"] == {
        "title": "Bad",
        "rootTitle": "Bad",
        "displayData": {"code": "generic.missingRuntimeExtension"},
    }
    assert server.predictions[0].error == "Bad"


def settings_of(packets: list[dict[str, Any]]) -> dict[str, Any]:
    return {field["key"]: field["value"] for field in packets[-1]["predictionConfig"]["fields"]}


@proves("S-PREDICT-LATER-LAYER", "S-PREDICT-FALSE-IS-OFF")
def test_settings_are_laid_over_each_other(me: Wire) -> None:
    first = {"temperature": 0.1, "maxPredictedTokens": {"checked": True, "value": 1}, "topKSampling": 4.0}
    second = {
        "maxPredictedTokens": {"checked": True, "value": False},
        "minPSampling": {"checked": True, "value": False},
    }
    layers = [*stack(first)["layers"], *stack(second, "serverSession")["layers"]]
    packets = me.stream("predict", asking("chat") | {"predictionConfigStack": {"layers": layers}})
    found = settings_of(packets)
    assert found["llm.prediction.temperature"] == 0.1
    assert found["llm.prediction.maxPredictedTokens"]["checked"] is False
    assert found["llm.prediction.minPSampling"] == {"checked": False, "value": 0.05}
    assert found["llm.prediction.topPSampling"] == {"checked": True, "value": 0.95}
    assert type(found["llm.prediction.topKSampling"]) is int
    assert packets[-1]["stats"]["stopReason"] == "eosFound"


@proves("S-PREDICT-PRESET-ORDER")
@pytest.mark.parametrize("name", ["@me/brief", "brief", "BRIEF"])
def test_a_preset_ranks_below_the_request(me: Wire, name: str) -> None:
    fields = {"maxPredictedTokens": {"checked": True, "value": 2}}
    for asked, count in ((asking("chat"), 1), (asking("chat", fields=fields), 2)):
        end = me.stream("predict", asked | {"fuzzyPresetIdentifier": name})[-1]
        assert end["stats"]["predictedTokensCount"] == count


@proves("S-ERROR-PRESET")
def test_an_unknown_preset_is_refused_with_those_that_there_are(me: Wire) -> None:
    error = me.stream("predict", asking("chat") | {"fuzzyPresetIdentifier": "x"})[-1]["error"]
    assert error["displayData"] == {
        "code": "generic.presetNotFound",
        "specifiedFuzzyPresetIdentifier": "x",
        "availablePresetsSample": [{"identifier": "@me/brief", "name": "Brief"}],
        "totalAvailablePresets": 1,
    }


@proves("S-COMPLETE-RAW")
def test_a_text_is_continued(server: Emulator, me: Wire) -> None:
    parameter = {"modelSpecifier": named("chat"), "rawPrompt": "Once upon", "predictionConfigStack": STACK}
    packets = me.stream("completeRawText", parameter)
    assert packets[-1]["stats"]["promptTokensCount"] == 2
    assert server.predictions[0].raw


@proves("S-COMPLETE-LEGACY")
def test_older_clients_continue_a_text_by_a_layer(server: Emulator, me: Wire) -> None:
    template = {"type": "jinja", "stopStrings": [], "jinjaPromptTemplate": {"template": "{{ messages }}"}}
    layers = stack({"promptTemplate": template}, "completeModeFormatting")
    packets = me.stream("predict", asking("chat", "Once upon") | {"predictionConfigStack": layers})
    assert packets[-1]["stats"]["promptTokensCount"] == 2
    assert server.predictions[0].raw


# Texts


@proves("S-TEXT-TOKENS")
def test_the_count_is_the_number_of_tokens(me: Wire) -> None:
    parameter = {"specifier": named("chat"), "inputString": "one two three"}
    assert len(me.result("tokenize", parameter)["tokens"]) == me.result("countTokens", parameter)["tokenCount"] == 3


@proves("S-TEXT-MARKS")
@pytest.mark.parametrize(("text", "count"), [("one two", 2), ("", 0)])
def test_marks_of_an_embedding_model_do_not_count(server: Emulator, text: str, count: int) -> None:
    parameter = {"specifier": named("vectors"), "inputString": text}
    with wire(server, "embedding") as me:
        assert len(me.result("tokenize", parameter)["tokens"]) == count + 2
        assert me.result("countTokens", parameter) == {"tokenCount": count}


@proves("S-TEXT-EMBED")
def test_a_text_becomes_a_vector(server: Emulator) -> None:
    with wire(server, "embedding") as me:
        found = me.result("embedString", {"modelSpecifier": named("vectors"), "inputString": "Hello"})
    assert [type(number) for number in found["embedding"]] == [float] * 8


@proves("S-TEXT-TEMPLATE")
def test_a_template_takes_files_that_are_not_there_and_two_system_messages(me: Wire) -> None:
    file = {"type": "file", "name": "x.txt", "identifier": "nowhere", "sizeBytes": 1, "fileType": "text/plain"}
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, file]},
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
    ]
    parameter = {
        "specifier": named("chat"),
        "history": {"messages": messages},
        "predictionConfigStack": STACK,
        "opts": {},
    }
    formatted = me.result("applyPromptTemplate", parameter)["formatted"]
    assert all(text in formatted for text in ("Be brief.", "Hello", "Be kind."))


def test_a_draft_model_must_be_there(me: Wire) -> None:
    assert me.call("preloadDraftModel", {"specifier": named("chat"), "draftModelKey": "blind"}) == {"type": "rpcResult"}
    error = me.refusal("preloadDraftModel", {"specifier": named("chat"), "draftModelKey": "nothing"})
    assert error["title"] == 'Cannot find model "nothing"'
    assert error["displayData"]["code"] == "generic.pathNotFound"


def test_defaults_and_estimates_can_be_asked_for(server: Emulator, me: Wire) -> None:
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


def test_the_state_of_nothing_is_nothing(me: Wire) -> None:
    parameter = {"specifier": named("nothing"), "throwIfNotFound": False}
    assert me.call("getInstanceProcessingState", parameter) == {"type": "rpcResult"}
    assert me.refusal("getInstanceProcessingState", parameter | {"throwIfNotFound": True})


# Files


def upload(files: Wire, name: str, content: str) -> dict[str, Any]:
    found: dict[str, Any] = files.result("uploadFileBase64", {"name": name, "contentBase64": content})
    return found


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


@proves("S-FILES-TYPES")
@pytest.mark.parametrize(
    ("name", "data", "file_type"),
    [
        ("a.txt", b"\x89PNG\r\n\x1a\n", "image"),
        ("a", b"\xff\xd8\xff\xe0", "image"),
        ("a", b"RIFF1234WEBPVP8 ", "image"),
        ("cat.jpeg", b"?", "image"),
        ("a.txt", b"x", "text/plain"),
        ("a.MD", b"x", "text/plain"),
        ("a.pdf", b"x", "application/pdf"),
        ("a.docx", b"x", "application/word"),
        ("a.csv", b"x", "text/other"),
        ("a.bin", b"x", "unknown"),
        ("a", b"", "unknown"),
    ],
)
def test_the_type_of_a_file_is_told_by_content_then_by_name(
    files: Wire, name: str, data: bytes, file_type: str
) -> None:
    found = upload(files, name, encoded(data))
    assert (found["fileType"], found["sizeBytes"]) == (file_type, len(data))


@proves("S-FILES-IDENTIFIERS")
def test_each_upload_has_an_identifier_of_its_own(files: Wire) -> None:
    names = [upload(files, "a.png", PNG)["identifier"] for _ in range(2)]
    assert names[0] != names[1]
    assert all(name.startswith("local:") and "/" not in name for name in names)


@pytest.mark.parametrize("content", ["!", "é"])
def test_what_is_no_base64_is_refused(files: Wire, content: str) -> None:
    error = files.refusal("uploadFileBase64", {"name": "a", "contentBase64": content})
    assert "base64" in error["title"]


def showing(model: str, identifier: str, file_type: str = "image") -> dict[str, Any]:
    asked = asking(model, "What is this?")
    part = {"type": "file", "name": "a.png", "identifier": identifier, "sizeBytes": 1, "fileType": file_type}
    asked["history"]["messages"][0]["content"].append(part)
    return asked


@proves("S-FILES-OTHER-SOCKET")
def test_a_file_is_seen_on_all_sockets_of_its_client_and_no_others(server: Emulator, me: Wire, files: Wire) -> None:
    identifier = upload(files, "a.png", PNG)["identifier"]
    for name in (identifier, identifier.removeprefix("local:"), f"base64:{PNG}"):
        assert me.stream("predict", showing("chat", name))[-1]["type"] == "success"
    with wire(server, client="guest:other") as other:
        error = other.stream("predict", showing("chat", identifier))[-1]["error"]
        assert "Cannot find an uploaded file" in error["title"]


@proves("S-FILES-LIFETIME")
def test_a_file_goes_with_the_last_socket_of_its_client(server: Emulator) -> None:
    with wire(server, "files", client="guest:short") as files:
        identifier = upload(files, "a.png", PNG)["identifier"]
    server.wait_for(lambda: not server.connections)
    with wire(server, client="guest:short") as me:
        assert me.stream("predict", showing("chat", identifier))[-1]["type"] == "error"


@proves("S-PREDICT-IMAGE-BLIND")
def test_a_model_without_eyes_refuses_images(me: Wire, files: Wire) -> None:
    error = me.stream("predict", showing("blind", upload(files, "a.png", PNG)["identifier"]))[-1]["error"]
    assert "does not support images" in error["title"]


@pytest.mark.parametrize(
    ("identifier", "file_type"),
    [("local:nowhere", "image"), ("base64:!", "image"), ("base64:é", "image"), ("local:x", "text/plain")],
)
def test_what_cannot_be_shown_is_refused(me: Wire, identifier: str, file_type: str) -> None:
    last = me.stream("predict", showing("chat", identifier, file_type))[-1]
    assert "Internal" not in last["error"]["title"]


@proves("S-FILES-PARSE")
def test_a_document_becomes_text(files: Wire) -> None:
    identifier = upload(files, "a.md", encoded("\ufeff# Title"))["identifier"]
    registry = files.result("getDocumentParsingLibrary", {"fileIdentifier": identifier})
    packets = files.stream("parseDocument", {"fileIdentifier": identifier, "parseOpts": {"parserId": registry}})
    assert packets == [
        {"type": "parserLoaded", "parser": registry},
        {"type": "progress", "progress": 1},
        {"type": "result", "content": "# Title", "parser": registry},
    ]


@pytest.mark.parametrize(("name", "data"), [("a.pdf", b"x"), ("a.png", b"x"), ("a.txt", b"\xff\xfe\xfd")])
def test_a_document_that_is_no_text_is_refused(files: Wire, name: str, data: bytes) -> None:
    identifier = upload(files, name, encoded(data))["identifier"]
    assert files.stream("parseDocument", {"fileIdentifier": identifier, "parseOpts": {}})[-1]["type"] == "error"
    assert files.refusal("getDocumentParsingLibrary", {"fileIdentifier": identifier})


def test_another_parser_is_refused(files: Wire) -> None:
    identifier = upload(files, "a.md", encoded("x"))["identifier"]
    options = {"parserId": {"library": "other", "version": "1"}}
    (packet,) = files.stream("parseDocument", {"fileIdentifier": identifier, "parseOpts": options})
    assert "other" in packet["error"]["title"]


def searching(files: Wire, query: str, **fields: Any) -> dict[str, Any]:
    identifiers = [
        upload(files, "a.md", encoded(TEXT))["identifier"],
        upload(files, "b.md", encoded("Blue!"))["identifier"],
    ]
    config = {"fields": [{"key": f"retrieval.{name}", "value": value} for name, value in fields.items()]}
    return {"query": query, "fileIdentifiers": identifiers, "config": config}


@proves("S-FILES-RETRIEVE")
def test_what_is_near_a_query_is_found(files: Wire) -> None:
    method = {"type": "recursive-v1", "chunkSize": 20, "chunkOverlap": 0}
    packets = files.stream("retrieve", searching(files, "green Grass", chunkingMethod=method, limit=2))
    kinds = [packet["type"] for packet in packets]
    assert packets[0] == {"type": "onFileProcessList", "indices": [0, 1]}
    assert kinds.count("onFileProcessingStart") == kinds.count("onFileProcessingEnd") == 2
    steps = [packet["step"] for packet in packets if packet["type"] == "onFileProcessingStepEnd"]
    assert steps == ["loading", "chunking", "embedding"] * 2
    assert kinds[-3:] == ["onSearchingStart", "onSearchingEnd", "result"]
    entries = packets[-1]["result"]["entries"]
    assert len(entries) == 2
    assert entries[0]["content"] == "Grass is green."
    assert (entries[0]["sourceIndex"], entries[0]["lineNumber"]) == (0, 3)
    assert entries[0]["score"] > entries[1]["score"]


def test_a_search_without_settings_takes_any_embedding_model_and_the_defaults(files: Wire) -> None:
    packets = files.stream("retrieve", searching(files, "sky"))
    assert len(packets[-1]["result"]["entries"]) == 2


def test_a_search_wants_a_loaded_embedding_model(server: Emulator, files: Wire) -> None:
    packets = files.stream("retrieve", searching(files, "sky", embeddingModel="nothing"))
    assert packets[-1]["error"]["displayData"]["code"] == "generic.noModelMatchingQuery"


def test_a_search_can_be_stopped() -> None:
    rule = {"then": [{"fault": "stall"}]}
    entry = ModelEntry(key="v", kind="embedding", rules=(rule,))
    with Emulator([entry], load=["v"]) as other, wire(other, "files") as files:
        channel = files.open("retrieve", searching(files, "sky"))
        files.hear()
        files.send(channel, {"type": "stop"})
        assert list(files.packets(channel))[-1]["type"] == "error"


class Held(ScriptedModel):
    """A model that keeps the whole server waiting with its second vector."""

    reached, go_on = threading.Event(), threading.Event()
    vectors = 0

    async def embed(self, text: str) -> list[float]:
        self.vectors += 1
        if self.vectors == 2:
            self.reached.set()
            self.go_on.wait(TIMEOUT)
        return [1.0, len(text)]


def test_a_search_hears_a_stop_between_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ScriptedModel", Held)
    with Emulator([VECTORS], load=["vectors"]) as other, wire(other, "files") as files:
        identifier = upload(files, "a.txt", encoded("word " * 20_000))["identifier"]
        asked = {"query": "x", "fileIdentifiers": [identifier], "config": {"fields": []}}
        channel = files.open("retrieve", asked)
        assert Held.reached.wait(TIMEOUT)
        files.send(channel, {"type": "stop"})
        Held.go_on.set()
        assert "cancelled" in list(files.packets(channel))[-1]["error"]["title"]


@pytest.mark.parametrize("step", ["chunk", "rank"])
def test_the_long_steps_of_a_search_keep_nobody_waiting(
    server: Emulator, me: Wire, files: Wire, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    reached, go_on, done = threading.Event(), threading.Event(), getattr(retrieval, step)

    def slow(*arguments: Any) -> Any:
        reached.set()
        assert go_on.wait(TIMEOUT)
        return done(*arguments)

    monkeypatch.setattr(retrieval, step, slow)
    channel = files.open("retrieve", searching(files, "sky"))
    assert reached.wait(TIMEOUT)
    assert len(me.result("listLoaded")) == 2
    go_on.set()
    assert list(files.packets(channel))[-1]["type"] == "result"


# System, repository, diagnostics


@proves("S-SYSTEM-VERSION")
def test_the_system_says_what_it_is(server: Emulator) -> None:
    with wire(server, "system") as me:
        version, info = me.result("version"), me.result("info")
        assert version == {"version": info["version"], "build": 1}
        assert type(info["pid"]) is int
        assert info["isDaemon"] is True


@proves("S-SYSTEM-ALIVE")
def test_alive_says_nothing_and_stays(server: Emulator) -> None:
    with wire(server, "system") as me:
        me.open("alive")
        assert me.result("getExperimentFlags") == []


def test_experiments_are_switched(server: Emulator) -> None:
    with wire(server, "system") as me:
        for code, value in (("b", True), ("a", True), ("b", False), ("c", False)):
            assert me.call("setExperimentFlag", {"code": code, "value": value}) == {"type": "rpcResult"}
        assert me.result("getExperimentFlags") == ["a"]


def test_what_the_emulator_cannot_do_it_refuses(server: Emulator) -> None:
    with wire(server, "system") as me:
        assert me.refusal("startHttpServer", {})
        assert me.refusal("requestShutdown")
        assert "variants" in me.refusal("listDownloadedModelVariants", {"modelKey": "chat"})["title"]
        assert me.refusal("listDownloadedModelVariants", {"modelKey": "x"})["displayData"]["totalModels"] == 3
        assert me.call("stopHttpServer") == {"type": "rpcResult"}


@proves("S-REPOSITORY-SEARCH")
def test_the_catalog_is_searched(server: Emulator) -> None:
    with wire(server, "repository") as me:

        def names(**opts: Any) -> list[str]:
            return [found["name"] for found in me.result("searchModels", {"opts": opts})["results"]]

        assert names() == ["chat", "blind", "vectors", "Not here"]
        assert names(limit=2) == ["chat", "blind"]
        assert names(searchTerm="NOT HERE") == names(searchTerm="absent") == ["Not here"]
        assert names(searchTerm="nothing like it") == []
        assert names(compatibilityTypes=["safetensors"]) == []
        (found,) = me.result("searchModels", {"opts": {"searchTerm": "absent"}})["results"]
        assert found["identifier"] == {"type": "catalog", "identifier": "absent"}
        assert found["exact"] is True


@proves("S-REPOSITORY-OPTIONS", "S-REPOSITORY-DOWNLOAD")
def test_a_model_is_downloaded_and_then_loaded(server: Emulator, me: Wire) -> None:
    assert me.get("absent")[-1]["type"] == "error"
    with wire(server, "repository") as shop:
        identifier = {"type": "catalog", "identifier": "absent"}
        (option,) = shop.result("getModelDownloadOptions", {"modelSearchResultIdentifier": identifier})["results"]
        assert option["sizeBytes"] == 10
        assert option["fitEstimation"] == "fitWithoutGPU"
        packets = shop.stream("downloadModel", {"downloadIdentifier": option["downloadIdentifier"]})
        assert [packet["type"] for packet in packets] == ["downloadProgress", "startFinalizing", "success"]
        update = packets[0]["update"]
        assert update.keys() == {"downloadedBytes", "totalBytes", "speedBytesPerSecond"}
        assert me.get(packets[-1]["defaultIdentifier"])[-1]["type"] == "loadSuccess"


def test_a_download_option_names_the_quantization(server: Emulator) -> None:
    with wire(server, "repository") as shop:
        parameter = {"modelSearchResultIdentifier": {"type": "catalog", "identifier": "blind"}}
        assert shop.result("getModelDownloadOptions", parameter)["results"][0]["quantization"] == "Q4_K_M"


def test_what_is_not_in_the_catalog_cannot_be_downloaded(server: Emulator) -> None:
    with wire(server, "repository") as shop:
        assert "nothing" in shop.stream("downloadModel", {"downloadIdentifier": "nothing"})[-1]["error"]["title"]


@proves("S-DIAGNOSTICS-LOGS")
def test_the_log_tells_of_predictions_until_it_is_stopped(server: Emulator, me: Wire) -> None:
    with wire(server, "diagnostics") as log, wire(server, "system") as system:
        channel = log.open("streamLogs")
        log.say({"type": "keepAlive"})
        assert log.hear()["type"] == "keepAliveAck"
        system.result("notify", {"title": "Hello", "description": "you"})
        me.stream("predict", asking("chat"))
        me.stream(
            "completeRawText", {"modelSpecifier": named("chat"), "rawPrompt": "x", "predictionConfigStack": STACK}
        )
        entries = [log.hear()["message"]["log"] for _ in range(5)]
        kinds = [entry["data"]["type"] for entry in entries]
        assert kinds == ["server.log", *["llm.prediction.input", "llm.prediction.output"] * 2]
        assert all(type(entry["timestamp"]) is int for entry in entries)
        assert "Hello" in entries[1]["data"]["input"]
        assert entries[1]["data"]["modelPath"] == "scripted/chat"
        assert entries[2]["data"]["stats"]["stopReason"] == "eosFound"
        tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
        me.stream("predict", asking("chat", fields={"tools": {"type": "toolArray", "tools": [tool]}}))
        assert '"a": 1' in [log.hear()["message"]["log"] for _ in range(2)][1]["data"]["output"]
        log.send(channel, {"type": "stop"})
        assert list(log.packets(channel)) == []
        me.stream("predict", asking("chat"))
        log.say({"type": "keepAlive"})
        assert log.hear()["type"] == "keepAliveAck"


# Downloads with bytes


def bytes_told(packets: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [
        (packet["update"]["downloadedBytes"], packet["update"]["totalBytes"])
        for packet in packets
        if packet["type"] == "downloadProgress"
    ]


def absent(weights: str) -> Emulator:
    """Return a server with a model that is to be downloaded."""
    return Emulator([ModelEntry(key="absent", engine="llama_cpp", weights=weights, downloaded=False)], offline=True)


def test_a_file_is_downloaded_with_progress_and_used_where_it_is(tmp_path: Path) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(b"GGUF" + bytes(996))
    with absent(str(source)) as server, wire(server, "repository") as shop, wire(server, "system") as system:
        packets = shop.stream("downloadModel", {"downloadIdentifier": "absent"})
        assert bytes_told(packets) == [(step * 100, 1000) for step in range(11)]
        assert packets[-1] == {"type": "success", "defaultIdentifier": "absent"}
        assert [info["modelKey"] for info in system.result("listDownloadedModels")] == ["absent"]
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.skipif(os.name != "posix", reason="has no FIFOs")
def test_a_fifo_cannot_be_downloaded(tmp_path: Path) -> None:
    source = tmp_path / "model.gguf"
    os.mkfifo(source)
    with absent(str(source)) as server, wire(server, "repository") as shop:
        error = shop.stream("downloadModel", {"downloadIdentifier": "absent"})[-1]["error"]
        assert "not a regular file" in error["cause"]


def test_a_file_that_is_not_there_cannot_be_downloaded(tmp_path: Path) -> None:
    with absent(str(tmp_path / "nothing.gguf")) as server, wire(server, "repository") as shop:
        error = shop.stream("downloadModel", {"downloadIdentifier": "absent"})[-1]["error"]
        assert "nothing.gguf" in error["cause"]


def test_bundled_weights_are_not_fetched_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def located(*_: object, offline: bool, **__: object) -> None:
        assert offline
        raise WeightsError("they are not here")

    monkeypatch.setattr("lmstudio_integrations.emulator.weights.locate", located)
    with absent("smollm2-135m-instruct") as server, wire(server, "repository") as shop:
        packets = shop.stream("downloadModel", {"downloadIdentifier": "absent"})
        assert bytes_told(packets)[0][0] == 0
        assert packets[-1]["error"]["cause"] == "they are not here"


def test_bundled_weights_are_brought_by_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmstudio_integrations.emulator.weights.locate", lambda *_, **__: ())
    with absent("smollm2-135m-instruct") as server, wire(server, "repository") as shop:
        packets = shop.stream("downloadModel", {"downloadIdentifier": "absent"})
        (none, total), (done, same) = bytes_told(packets)
        assert none == 0 < total == done == same
        assert packets[-1]["type"] == "success"


def test_a_download_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr("lmstudio_integrations.emulator.weights.locate", lambda *_, **__: go_on.wait(TIMEOUT))
    with absent("smollm2-135m-instruct") as server, wire(server, "repository") as shop:
        channel = shop.open("downloadModel", {"downloadIdentifier": "absent"})
        shop.hear()
        shop.send(channel, {"type": "cancel"})
        assert "cancelled" in list(shop.packets(channel))[-1]["error"]["title"]
        go_on.set()


def test_a_draft_model_that_is_not_there_is_refused(me: Wire) -> None:
    fields = {"speculativeDecoding.draftModel": "nothing"}
    error = me.stream("predict", asking("chat", fields=fields))[-1]["error"]
    assert error["title"] == 'Cannot find model "nothing"'
    assert error["displayData"]["code"] == "generic.pathNotFound"
