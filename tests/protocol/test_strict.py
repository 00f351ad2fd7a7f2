"""The strict listener itself: it accepts every frame of the description, and finds every kind of error."""

import importlib
import json
from typing import Any, Literal

import pytest

from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.emulator import Emulator
from tests.support.strict.fixture import Findings, strict, strict_findings
from tests.support.strict.listener import Direction, StrictError, StrictListener

__all__ = ["strict", "strict_findings"]

AUTH = {"authVersion": 1, "clientIdentifier": "guest:1", "clientPasskey": "secret"}
QUERY = {"type": "query", "query": {"identifier": "m1"}}
EMPTY_STACK = {"layers": [{"layerName": "apiOverride", "config": {"fields": []}}]}
TEXT = {"type": "text", "text": "hi"}
FILE = {"type": "file", "name": "cat.png", "identifier": "a", "sizeBytes": 3, "fileType": "image"}
REQUEST = {"type": "toolCallRequest", "toolCallRequest": {"type": "function", "name": "f", "arguments": {}}}
RESULT = {"type": "toolCallResult", "content": "3", "toolCallId": "a"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


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


def packet(**members: Any) -> str:
    """Return the frame of a packet, of either side."""
    return json.dumps({"type": "channelSend", "channelId": 1, "message": members})


def plugin(endpoint: Literal["startToolUseSession", "generateWithGenerator"], **fields: Any) -> dict[str, Any]:
    """Return the frame that opens a channel of a plugin."""
    more = {} if endpoint == "startToolUseSession" else {"tools": [TOOL], "history": {"messages": []}}
    direct = {"type": "direct", "config": {"fields": []}}
    return create(endpoint, {"pluginIdentifier": "mcp/sums", "pluginConfigSpecifier": direct, **more, **fields})


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
    "the tools of a plugin": ("plugins", plugin("startToolUseSession")),
    "the tools of a plugin with settings": (
        "plugins",
        plugin(
            "startToolUseSession",
            pluginConfigSpecifier={
                "type": "direct",
                "config": {"fields": [{"key": "folder", "value": "/tmp"}]},
                "workingDirectoryPath": "/tmp",
            },
        ),
    ),
    "the tools of a plugin inside of a prediction": (
        "plugins",
        plugin("startToolUseSession", pluginConfigSpecifier={"type": "predictionProcess", "pci": "p", "token": "t"}),
    ),
    "the text of a plugin": (
        "plugins",
        plugin("generateWithGenerator", history={"messages": [entry("user", TEXT), entry("assistant", TEXT)]}),
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
    "plugin without a name": ("plugins", plugin("startToolUseSession", pluginIdentifier=""), "pluginIdentifier has 0"),
    "plugin without a specifier of its settings": (
        "plugins",
        create("startToolUseSession", {"pluginIdentifier": "mcp/sums"}),
        "lacks 'pluginConfigSpecifier'",
    ),
    "settings of a plugin in layers": (
        "plugins",
        plugin("startToolUseSession", pluginConfigSpecifier={"type": "direct", "config": EMPTY_STACK}),
        "nothing but a list of fields",
    ),
    "settings of a plugin of an unknown kind": (
        "plugins",
        plugin("startToolUseSession", pluginConfigSpecifier={"type": "none"}),
        "must be one of direct, predictionProcess",
    ),
    "null for a working directory": (
        "plugins",
        plugin(
            "startToolUseSession",
            pluginConfigSpecifier={"type": "direct", "config": {"fields": []}, "workingDirectoryPath": None},
        ),
        "workingDirectoryPath is null",
    ),
    "history for the tools of a plugin": (
        "plugins",
        plugin("startToolUseSession", history={"messages": []}),
        "unknown field 'history'",
    ),
    "text of a plugin without a list of tools": (
        "plugins",
        plugin("generateWithGenerator", tools={"type": "none"}),
        "tools must be a list",
    ),
    "plain text for the text of a plugin": (
        "plugins",
        plugin("generateWithGenerator", history="hi"),
        "history must be an object",
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


def test_the_listener_lets_a_client_send_several_packets_before_it_cancels() -> None:
    listener = listening()
    target = {"type": "artifact", "owner": "qwen", "name": "qwen3-4b"}
    listener.feed("client", "repository", json.dumps(create("createDownloadPlan", {"target": target})))
    for kind in ("commit", "cancelDownload"):
        listener.feed("client", "repository", packet(type=kind))
    with pytest.raises(StrictError, match="was cancelled before"):
        listener.feed("client", "repository", packet(type="commit"))


def ready(*tools: Any) -> tuple[Direction, str]:
    return "server", packet(type="sessionReady", toolDefinitions=list(tools))


def call(call_id: Any = 0, **members: Any) -> tuple[Direction, str]:
    return "client", packet(**{"type": "callTool", "callId": call_id, "name": "f", "arguments": {"a": 1}, **members})


def abort(call_id: Any = 0) -> tuple[Direction, str]:
    return "client", packet(type="abortToolCall", callId=call_id)


def status(call_id: Any = 0, **members: Any) -> tuple[Direction, str]:
    return "server", packet(**{"type": "toolCallStatus", "callId": call_id, "statusText": "busy", **members})


def complete(call_id: Any = 0, **members: Any) -> tuple[Direction, str]:
    return "server", packet(**{"type": "toolCallComplete", "callId": call_id, "result": None, **members})


def failed(call_id: Any = 0, **error: Any) -> tuple[Direction, str]:
    return "server", packet(type="toolCallError", callId=call_id, error=error)


DISCARD: tuple[Direction, str] = ("client", packet(type="discardSession"))
PRESET_NOT_FOUND = {
    "code": "generic.presetNotFound",
    "specifiedFuzzyPresetIdentifier": "p",
    "availablePresetsSample": [{"identifier": "a", "name": "A"}],
    "totalAvailablePresets": 1,
}


def test_the_listener_accepts_every_packet_of_a_tool_session() -> None:
    listener = listening()
    listener.feed("client", "plugins", json.dumps(plugin("startToolUseSession")))
    for direction, text in [
        ready(TOOL, {"type": "function", "function": {"name": "g", "description": "Get it"}}),
        call(0),
        call(1, arguments={}),
        call(2),
        status(1),
        ("server", packet(type="toolCallWarn", callId=0, warnText="slow")),
        failed(1, title="no", rootTitle="no", errorData={"a": 1}, displayData=PRESET_NOT_FOUND),
        abort(2),
        complete(0, result=[{"type": "text", "text": "3"}]),
        abort(0),  # crosses the end of the call
        call(3),
        DISCARD,
        complete(3),
        ("server", '{"type":"channelClose","channelId":1}'),
    ]:
        listener.feed(direction, "plugins", text)


SESSIONS: dict[str, tuple[list[tuple[Direction, str]], str]] = {
    "call before the session is ready": ([call()], "before sessionReady"),
    "first call with another id than 0": ([ready(), call(1)], "has the callId 0, not 1"),
    "id used again": ([ready(), call(), complete(), call()], "has the callId 1, not 0"),
    "id left out": ([ready(), call(), call(2)], "has the callId 1, not 2"),
    "id that is no integer": ([ready(), call(0.0)], "callId must be an integer"),
    "call without arguments": ([ready(), call(arguments=None)], "arguments is null"),
    "arguments as text": ([ready(), call(arguments="{}")], "arguments must be an object"),
    "call without a name": ([ready(), call(name="")], "name has 0 characters"),
    "abort of a call that was never made": ([ready(), call(), abort(1)], "call 1 was never made"),
    "abort twice": ([ready(), call(), abort(), abort()], "call 0 was aborted before"),
    "call after the session was discarded": ([ready(), DISCARD, call()], "was cancelled before"),
    "discarded twice": ([ready(), DISCARD, DISCARD], "was cancelled before"),
    "cancel in place of discard": ([ready(), ("client", packet(type="cancel"))], "must be one of callTool"),
    "ready twice": ([ready(), ready()], "sessionReady must come first, and once"),
    "status before ready": ([status()], "sessionReady must come first"),
    "tool without a schema of its own": (
        [ready({"type": "function", "function": {"name": "f", "parameters": {}}})],
        "lacks 'type'",
    ),
    "schema of a tool that is no object": (
        [ready({"type": "function", "function": {"name": "f", "parameters": {"type": "string", "properties": {}}}})],
        "type must be one of 'object'",
    ),
    "tool whose schema has no properties": (
        [ready({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}})],
        "lacks 'properties'",
    ),
    "tools without their wrapping": ([ready({"name": "f"})], "lacks 'function'"),
    "status of a call that was never made": ([ready(), status()], "call 0 was never made"),
    "status of an aborted call": ([ready(), call(), abort(), status()], "nothing of it may follow"),
    "end of an aborted call": ([ready(), call(), abort(), failed()], "nothing of it may follow"),
    "two ends of a call": ([ready(), call(), complete(), failed()], "call 0 has ended before"),
    "status after the end": ([ready(), call(), failed(), status()], "call 0 has ended before"),
    "status without text": ([ready(), call(), status(statusText=1)], "statusText must be text"),
    "unknown packet of the server": ([ready(), call(), status(type="toolCallProgress")], "must be one of sessionReady"),
    "end without a result": (
        [ready(), call(), ("server", packet(type="toolCallComplete", callId=0))],
        "lacks 'result'",
    ),
    "result that is no JSON": ([ready(), call(), complete(result=float("nan"))], "NaN is no JSON"),
    "error of a call that is text": (
        [ready(), call(), ("server", packet(type="toolCallError", callId=0, error="no"))],
        "error must be an object",
    ),
    "error with an unknown field": ([ready(), call(), failed(message="no")], "unknown field 'message'"),
    "error without data of its code": (
        [ready(), call(), failed(displayData={"code": "generic.pathNotFound"})],
        "lacks 'path'",
    ),
    "session that cannot start, for no reason": (
        [("server", '{"type":"channelError","channelId":1,"error":{"title":null}}')],
        "error.title is null",
    ),
}


@pytest.mark.parametrize("name", SESSIONS)
def test_the_listener_finds_every_kind_of_error_in_a_tool_session(name: str) -> None:
    packets, finding = SESSIONS[name]
    check_last(plugin("startToolUseSession"), packets, finding)


def check_last(opening: dict[str, Any], packets: list[tuple[Direction, str]], finding: str) -> None:
    """Check that the listener accepts all packets of a channel but the last."""
    listener = listening()
    listener.feed("client", "plugins", json.dumps(opening))
    for direction, text in packets[:-1]:
        listener.feed(direction, "plugins", text)
    with pytest.raises(StrictError) as caught:
        listener.feed(packets[-1][0], "plugins", packets[-1][1])
    assert finding in str(caught.value)


def test_each_tool_session_counts_its_own_calls() -> None:
    listener = listening()
    for channel_id in (1, 2):
        frame = {**plugin("startToolUseSession"), "channelId": channel_id}
        listener.feed("client", "plugins", json.dumps(frame))
        for direction, text in (ready(), call(0)):
            listener.feed(direction, "plugins", json.dumps({**json.loads(text), "channelId": channel_id}))


DETAILS = {
    "cachedTokenCount": 0,
    "totalPromptTokenCount": 1,
    "processedPromptTokenCount": 1,
    "unprocessedPromptTokenCount": 0,
}
FRAGMENT = {
    "content": "a",
    "tokensCount": 1,
    "containsDrafted": False,
    "reasoningType": "none",
    "isStructural": False,
}
CANDIDATE = {"text": "a", "id": 1, "logProb": -0.5}
GENERATED: list[dict[str, Any]] = [
    {"type": "promptProcessingProgress", "progress": 0.5},
    {"type": "promptProcessingProgress", "progress": 1, "details": DETAILS},
    {"type": "fragment", "fragment": FRAGMENT},
    {"type": "fragment", "fragment": {**FRAGMENT, "tokens": [{**CANDIDATE, "candidates": [CANDIDATE]}]}},
    {"type": "toolCallGenerationStart"},
    {"type": "toolCallGenerationStart", "toolCallId": "a"},
    {"type": "toolCallGenerationNameReceived", "name": "f"},
    {"type": "toolCallGenerationArgumentFragmentGenerated", "content": "{}"},
    {"type": "toolCallGenerationEnd", "toolCallRequest": REQUEST["toolCallRequest"]},
    {"type": "toolCallGenerationFailed"},
    {"type": "success"},
]


def test_the_listener_accepts_every_packet_of_a_generator() -> None:
    listener = listening()
    listener.feed("client", "plugins", json.dumps(plugin("generateWithGenerator")))
    for each in GENERATED:
        listener.feed("server", "plugins", packet(**each))
    listener.feed("client", "plugins", packet(type="cancel"))


@pytest.mark.parametrize(
    ("message", "finding"),
    [
        ({"type": "success", "stats": {"stopReason": "eosFound"}}, "unknown field 'stats'"),
        ({"type": "toolCallGenerationFailed", "error": {"title": "no"}}, "unknown field 'error'"),
        ({**GENERATED[8], "rawContent": "<tool>"}, "unknown field 'rawContent'"),
        ({"type": "promptProcessingProgress", "progress": 2}, "between 0 and 1"),
        ({"type": "promptProcessingProgress", "progress": 1, "details": {}}, "lacks 'cachedTokenCount'"),
        ({"type": "fragment", "fragment": {"content": "a"}}, "lacks 'isStructural'"),
        ({"type": "fragment", "fragment": {**FRAGMENT, "reasoningType": "thinking"}}, "reasoningType must be one of"),
        ({"type": "toolCallGenerationStart", "toolCallId": None}, "toolCallId is null"),
        ({"type": "sessionReady", "toolDefinitions": []}, "must be one of promptProcessingProgress"),
    ],
)
def test_the_listener_finds_errors_in_the_packets_of_a_generator(message: dict[str, Any], finding: str) -> None:
    check_last(plugin("generateWithGenerator"), [("server", packet(**message))], finding)


def test_the_listener_lets_a_client_cancel_a_generator_once() -> None:
    cancel: tuple[Direction, str] = ("client", packet(type="cancel"))
    check_last(plugin("generateWithGenerator"), [cancel, cancel], "was cancelled before")


def test_the_listener_counts_warnings() -> None:
    listener, warning = listening(), json.dumps({"type": "communicationWarning", "warning": "hm"})
    for _ in range(5):
        listener.feed("client", "llm", warning)
    with pytest.raises(StrictError, match="5 warnings at most"):
        listener.feed("client", "llm", warning)


def test_the_listener_checks_the_server_on_channels_of_plugins_only() -> None:
    listener = listening()
    listener.feed("client", "llm", json.dumps(load()))
    for text in ("{", "[]", '{"type":"unheardOf"}', packet(type="unheardOf")):
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
