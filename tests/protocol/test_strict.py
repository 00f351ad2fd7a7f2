"""The strict listener itself: it accepts every frame of the description, and finds every kind of error."""

import importlib
import json
from typing import Any

import pytest

from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.emulator import Emulator
from tests.support.strict.fixture import Findings, strict, strict_findings
from tests.support.strict.listener import StrictError, StrictListener

__all__ = ["strict", "strict_findings"]

AUTH = {"authVersion": 1, "clientIdentifier": "guest:1", "clientPasskey": "secret"}
QUERY = {"type": "query", "query": {"identifier": "m1"}}
EMPTY_STACK = {"layers": [{"layerName": "apiOverride", "config": {"fields": []}}]}
TEXT = {"type": "text", "text": "hi"}
FILE = {"type": "file", "name": "cat.png", "identifier": "a", "sizeBytes": 3, "fileType": "image"}
REQUEST = {"type": "toolCallRequest", "toolCallRequest": {"type": "function", "name": "f", "arguments": {}}}
RESULT = {"type": "toolCallResult", "content": "3", "toolCallId": "a"}


def listening(*, authenticated: bool = True) -> StrictListener:
    """Return a listener on a socket whose client is authenticated."""
    listener = StrictListener()
    if authenticated:
        listener.feed("client", "llm", json.dumps(AUTH))
        listener.feed("server", "llm", '{"success":true}')
    return listener


def rpc(endpoint: str, parameter: Any = ..., call_id: Any = 1) -> dict[str, Any]:
    """Return the frame of a call."""
    frame = {"type": "rpcCall", "endpoint": endpoint, "callId": call_id}
    return frame if parameter is ... else {**frame, "parameter": parameter}


def create(endpoint: str, parameter: Any = ..., channel_id: Any = 1) -> dict[str, Any]:
    """Return the frame that opens a channel."""
    frame = {"type": "channelCreate", "endpoint": endpoint, "channelId": channel_id}
    return frame if parameter is ... else {**frame, "creationParameter": parameter}


def predict(*messages: Any, **fields: Any) -> dict[str, Any]:
    """Return the frame that opens a prediction, with settings by their keys."""
    return create("predict", prediction(*messages, **fields))


def prediction(*messages: Any, **fields: Any) -> dict[str, Any]:
    """Return what opens a prediction; dots in keys are written as two underscores."""
    config = [{"key": f"llm.prediction.{key.replace('__', '.')}", "value": value} for key, value in fields.items()]
    return {
        "modelSpecifier": QUERY,
        "history": {"messages": list(messages)},
        "predictionConfigStack": {"layers": [{"layerName": "apiOverride", "config": {"fields": config}}]},
    }


def load(**fields: Any) -> dict[str, Any]:
    """Return the frame that gets or loads a model."""
    return create("getOrLoad", {"identifier": "m", "loadConfigStack": EMPTY_STACK, **fields})


def entry(role: str, *parts: Any) -> dict[str, Any]:
    """Return a message."""
    return {"role": role, "content": list(parts)}


GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "a void call": ("llm", rpc("listLoaded")),
    "a lookup": ("llm", rpc("getModelInfo", {"specifier": QUERY, "throwIfNotFound": True})),
    "any model": ("llm", rpc("getLoadConfig", {"specifier": {"type": "query", "query": {}}})),
    "an instance": (
        "embedding",
        rpc("tokenize", {"specifier": {"type": "instanceReference", "instanceReference": "r"}, "inputString": ""}),
    ),
    "an explicit null": ("llm", rpc("unloadModel", {"identifier": "m", "deviceIdentifier": None})),
    "a load": ("llm", load(loadTtlMs=3600000)),
    "a conversation": (
        "llm",
        predict(
            entry("system", TEXT),
            entry("user", TEXT, FILE),
            entry("assistant", TEXT, REQUEST),
            entry("tool", RESULT),
        ),
    ),
    "settings": (
        "llm",
        predict(
            entry("user", TEXT),
            temperature=0.5,
            topKSampling=40,
            maxPredictedTokens={"checked": False, "value": 1},
            llama__logitBias=[[1, "-inf"], [2, 0.5]],
            structured={"type": "json", "jsonSchema": {"type": "array"}},
            tools={"type": "toolArray", "tools": []},
        ),
    ),
    "a key of the user's own": (
        "llm",
        create(
            "getOrLoad",
            {
                "identifier": "m",
                "loadConfigStack": {
                    "layers": [
                        {
                            "layerName": "apiOverride",
                            "config": {"fields": [{"key": "ext.virtualModel.customField.a", "value": 1}]},
                        }
                    ]
                },
            },
        ),
    ),
    "a search": ("repository", rpc("searchModels", {"opts": {"limit": 25}})),
    "a retrieval": (
        "files",
        create(
            "retrieve",
            {
                "query": "q",
                "fileIdentifiers": ["f"],
                "config": {"fields": [{"key": "retrieval.limit", "value": 3}]},
            },
        ),
    ),
    "a sign of life": ("system", {"type": "keepAlive"}),
    "a warning": ("system", {"type": "communicationWarning", "warning": "hm", "kind": "unknown"}),
    "an acknowledgement": ("llm", {"type": "channelAck", "channelId": 1, "ackId": 1}),
}

BAD: dict[str, tuple[str, Any, str]] = {
    "unknown field of a frame": ("llm", {**rpc("listLoaded"), "extra": 1}, "unknown field 'extra'"),
    "unknown kind of frame": ("llm", {"type": "rpcCal", "endpoint": "listLoaded", "callId": 1}, "must be one of"),
    "no object": ("llm", [1], "must be an object"),
    "no id": ("llm", {"type": "rpcCall", "endpoint": "listLoaded"}, "lacks 'callId'"),
    "id that is no integer": ("llm", rpc("listLoaded", call_id=1.0), "must be an integer, is 1.0"),
    "id that is a truth value": ("llm", rpc("listLoaded", call_id=True), "must be an integer, is True"),
    "null for a void parameter": ("llm", rpc("listLoaded", None), "parameter is null"),
    "parameter where none is taken": ("llm", rpc("listLoaded", {}), "must be absent"),
    "no parameter where one is due": ("llm", rpc("tokenize"), "needs 'parameter'"),
    "unknown endpoint": ("llm", rpc("embedString", {}), "no RPC 'embedString'"),
    "channel called as an RPC": ("llm", rpc("predict", {}), "no RPC 'predict'"),
    "RPC opened as a channel": ("llm", create("listLoaded"), "no channel 'listLoaded'"),
    "wrong name of the specifier": (
        "llm",
        rpc("tokenize", {"modelSpecifier": QUERY, "inputString": ""}),
        "lacks 'specifier'",
    ),
    "unknown kind of specifier": (
        "llm",
        rpc("getLoadConfig", {"specifier": {"type": "key", "key": "m"}}),
        "specifier.type must be one of",
    ),
    "null in a query": (
        "llm",
        rpc("getLoadConfig", {"specifier": {"type": "query", "query": {"identifier": None}}}),
        "identifier is null",
    ),
    "control characters in a query": (
        "llm",
        rpc("getLoadConfig", {"specifier": {"type": "query", "query": {"identifier": "a\n"}}}),
        "control",
    ),
    "the forbidden name": (
        "llm",
        rpc("getLoadConfig", {"specifier": {"type": "query", "query": {"path": "__proto__"}}}),
        "__proto__",
    ),
    "time to live with a fraction": ("llm", load(loadTtlMs=1500.5), "must be an integer"),
    "time to live of nothing": ("llm", load(loadTtlMs=0), "must lie between 1"),
    "time to live under another name": ("llm", load(ttlMs=1), "unknown field 'ttlMs'"),
    "null for a time to live": ("llm", load(loadTtlMs=None), "loadTtlMs is null"),
    "plain text as content": ("llm", predict({"role": "user", "content": "hi"}), "must be a list"),
    "unknown role": ("llm", predict(entry("developer", TEXT)), "role must be one of"),
    "tool call of a user": ("llm", predict(entry("user", REQUEST)), "type must be one of text, file"),
    "text of a tool": ("llm", predict(entry("tool", TEXT)), "type must be one of toolCallResult"),
    "arguments as text": (
        "llm",
        predict(
            entry(
                "assistant",
                {
                    "type": "toolCallRequest",
                    "toolCallRequest": {"type": "function", "name": "f", "arguments": "{}"},
                },
            )
        ),
        "arguments must be an object",
    ),
    "unknown kind of file": (
        "llm",
        predict(entry("user", {**FILE, "fileType": "picture"})),
        "fileType must be one of",
    ),
    "unknown layer": (
        "llm",
        create(
            "getOrLoad",
            {
                "identifier": "m",
                "loadConfigStack": {"layers": [{"layerName": "mine", "config": {"fields": []}}]},
            },
        ),
        "layerName must be one of",
    ),
    "no layer": ("llm", create("getOrLoad", {"identifier": "m", "loadConfigStack": {"layers": []}}), "at least 1"),
    "no list of fields": (
        "llm",
        create(
            "getOrLoad",
            {"identifier": "m", "loadConfigStack": {"layers": [{"layerName": "apiOverride", "config": {}}]}},
        ),
        "nothing but a list of fields",
    ),
    "mistyped key": ("llm", predict(entry("user", TEXT), temprature=1), "has no place here"),
    "load key in a prediction": (
        "embedding",
        create(
            "getOrLoad",
            {
                "identifier": "m",
                "loadConfigStack": {
                    "layers": [
                        {
                            "layerName": "apiOverride",
                            "config": {"fields": [{"key": "llm.load.contextLength", "value": 1}]},
                        }
                    ]
                },
            },
        ),
        "has no place here",
    ),
    "float for an integer setting": (
        "llm",
        predict(entry("user", TEXT), topKSampling=4.0),
        "must be an integer",
    ),
    "null for a setting": ("llm", predict(entry("user", TEXT), temperature=None), "must be a number"),
    "bare value of a checkbox": (
        "llm",
        predict(entry("user", TEXT), maxPredictedTokens=5),
        "must be an object",
    ),
    "off as the Python SDK writes it": (
        "llm",
        predict(entry("user", TEXT), maxPredictedTokens={"checked": True, "value": False}),
        "must be an integer, is False",
    ),
    "field twice": (
        "llm",
        create(
            "getOrLoad",
            {
                "identifier": "m",
                "loadConfigStack": {
                    "layers": [
                        {
                            "layerName": "apiOverride",
                            "config": {"fields": [{"key": "a", "value": 1}, {"key": "a", "value": 1}]},
                        }
                    ]
                },
            },
        ),
        "sets a again",
    ),
    "field without value": (
        "files",
        create("retrieve", {"query": "q", "fileIdentifiers": [], "config": {"fields": [{"key": "a"}]}}),
        "key and value",
    ),
    "tool without properties": (
        "llm",
        predict(
            entry("user", TEXT),
            tools={
                "type": "toolArray",
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            },
        ),
        "lacks 'properties'",
    ),
    "pair of another length": ("llm", predict(entry("user", TEXT), llama__logitBias=[[1]]), "list of two"),
    "packet on no channel": ("llm", {"type": "channelSend", "channelId": 9, "message": {"type": "cancel"}}, "never"),
    "limit out of range": ("repository", rpc("searchModels", {"opts": {"limit": 26}}), "between 1 and 25"),
    "truth value that is none": ("llm", rpc("getModelInfo", {"specifier": QUERY, "throwIfNotFound": 1}), "true or"),
    "text that is none": ("llm", rpc("unloadModel", {"identifier": 1}), "must be text"),
    "schema that is none": (
        "llm",
        predict(entry("user", TEXT), structured={"type": "json", "jsonSchema": "{}"}),
        "jsonSchema must be an object",
    ),
    "specifier that is none": ("llm", rpc("getLoadConfig", {"specifier": "m"}), "specifier must be an object"),
}


@pytest.mark.parametrize("name", GOOD)
def test_the_listener_accepts_what_the_description_allows(name: str) -> None:
    namespace, frame = GOOD[name]
    listening().feed("client", namespace, json.dumps(frame))


@pytest.mark.parametrize("name", BAD)
def test_the_listener_finds_every_kind_of_error_and_its_place(name: str) -> None:
    namespace, frame, finding = BAD[name]
    with pytest.raises(StrictError) as caught:
        listening().feed("client", namespace, json.dumps(frame))
    assert finding in str(caught.value)
    assert str(caught.value).startswith(f"on /{namespace}: ")


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("{", "no JSON"),
        ('{"type":"keepAlive","type":"keepAlive"}', "a key stands twice"),
        ('{"type":"rpcCall","endpoint":"x","callId":NaN}', "NaN is no JSON"),
        (b'{"type":"\xff"}', "no JSON"),
    ],
)
def test_the_listener_parses_json_strictly(text: str | bytes, finding: str) -> None:
    with pytest.raises(StrictError, match=finding):
        listening().feed("client", "llm", text)


@pytest.mark.parametrize(
    "change",
    [
        {"authVersion": 2},
        {"authVersion": True},
        {"clientPasskey": None},
        {"clientIdentifier": ""},
        {"clientIdentifier": "x" * 257},
        {"type": "auth"},
    ],
)
def test_the_listener_finds_errors_in_the_first_frame(change: dict[str, Any]) -> None:
    with pytest.raises(StrictError, match="the first frame"):
        listening(authenticated=False).feed("client", "llm", json.dumps({**AUTH, **change}))


def test_the_listener_requires_waiting_for_the_authentication_result() -> None:
    listener = listening(authenticated=False)
    listener.feed("client", "llm", json.dumps(AUTH))
    with pytest.raises(StrictError, match="between the first frame and the server's reply"):
        listener.feed("client", "llm", json.dumps(rpc("listLoaded")))


def test_the_listener_requires_each_id_to_be_used_once() -> None:
    listener = listening()
    listener.feed("client", "llm", json.dumps(rpc("listLoaded")))
    with pytest.raises(StrictError, match="call id 1 was used before"):
        listener.feed("client", "llm", json.dumps(rpc("listLoaded")))


def test_the_listener_requires_each_channel_to_be_opened_and_cancelled_once() -> None:
    listener = listening()
    cancel = {"type": "channelSend", "channelId": 1, "message": {"type": "cancel"}}
    listener.feed("client", "llm", json.dumps(load()))
    listener.feed("client", "llm", json.dumps(cancel))
    with pytest.raises(StrictError, match="was cancelled before"):
        listener.feed("client", "llm", json.dumps(cancel))
    with pytest.raises(StrictError, match="channel id 1 was used before"):
        listener.feed("client", "llm", json.dumps(load()))


def test_the_listener_checks_packets_of_each_channel() -> None:
    listener = listening()
    listener.feed("client", "files", json.dumps(GOOD["a retrieval"][1]))
    with pytest.raises(StrictError, match="must be one of stop"):
        listener.feed("client", "files", '{"type":"channelSend","channelId":1,"message":{"type":"cancel"}}')
    listener.feed("client", "system", json.dumps(create("alive", channel_id=2)))
    with pytest.raises(StrictError, match="must not send on this channel"):
        listener.feed("client", "system", '{"type":"channelSend","channelId":2,"message":{"type":"cancel"}}')


def test_the_listener_counts_warnings() -> None:
    listener, warning = listening(), json.dumps({"type": "communicationWarning", "warning": "hm"})
    for _ in range(5):
        listener.feed("client", "llm", warning)
    with pytest.raises(StrictError, match="5 warnings at most"):
        listener.feed("client", "llm", warning)


def test_the_listener_does_not_check_the_server() -> None:
    listener = listening()
    for text in ("{", "[]", '{"type":"unheardOf"}'):
        listener.feed("server", "llm", text)


@pytest.mark.parametrize("folder", ["client", "langchain", "llama_index"])
def test_every_test_of_a_client_over_an_emulator_is_overheard(folder: str) -> None:
    conftest = importlib.import_module(f"tests.{folder}.conftest")
    assert (conftest.strict_findings, conftest.strict) == (strict_findings, strict)


def test_the_listener_receives_what_a_client_sends_to_an_emulator(emulator: Emulator, strict: Findings) -> None:
    with Client(emulator.address) as client:
        client.llm.list_loaded()
    assert strict.frames == 2
    assert not strict.findings


def test_a_finding_in_an_emulator_reaches_the_test(emulator: Emulator, strict: Findings) -> None:
    connection = next(iter(_opened(emulator)))
    strict.receive_frame(connection, "client", "{")
    assert len(strict.findings) == 1
    strict.findings.clear()


def _opened(emulator: Emulator) -> Any:
    with Client(emulator.address) as client:
        client.llm.list_loaded()
        return list(emulator._started.server.connections)
