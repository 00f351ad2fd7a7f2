"""The strict listener finds each kind of error; what it must accept, the tests of every client send."""

import importlib
import json
from typing import Any

import pytest

from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.emulator import Emulator
from tests.support.strict.fixture import Findings, strict, strict_findings
from tests.support.strict.listener import Direction, StrictError, StrictListener

__all__ = ["strict", "strict_findings"]

AUTH = {"authVersion": 1, "clientIdentifier": "guest:1", "clientPasskey": "secret"}
QUERY = {"type": "query", "query": {"identifier": "m1"}}
EMPTY_STACK = {"layers": [{"layerName": "apiOverride", "config": {"fields": []}}]}


def rpc(endpoint: str, parameter: Any = ..., call_id: Any = 1) -> dict[str, Any]:
    """Return the frame of a call."""
    frame = {"type": "rpcCall", "endpoint": endpoint, "callId": call_id}
    return frame if parameter is ... else {**frame, "parameter": parameter}


def create(endpoint: str, parameter: Any) -> dict[str, Any]:
    """Return the frame that opens a channel."""
    return {"type": "channelCreate", "endpoint": endpoint, "channelId": 1, "creationParameter": parameter}


def load(**fields: Any) -> dict[str, Any]:
    """Return the frame that gets or loads a model."""
    return create("getOrLoad", {"identifier": "m", "loadConfigStack": EMPTY_STACK, **fields})


def predict(role: str, content: Any, **settings: Any) -> dict[str, Any]:
    """Return the frame that opens a prediction, with settings by their keys."""
    fields = [{"key": f"llm.prediction.{key}", "value": value} for key, value in settings.items()]
    stack = {"layers": [{"layerName": "apiOverride", "config": {"fields": fields}}]}
    history = {"messages": [{"role": role, "content": content}]}
    return create("predict", {"modelSpecifier": QUERY, "history": history, "predictionConfigStack": stack})


def packet(**members: Any) -> dict[str, Any]:
    """Return the frame of a packet, of either side."""
    return {"type": "channelSend", "channelId": 1, "message": members}


def call(call_id: Any, **members: Any) -> tuple[Direction, Any]:
    return "client", packet(type="callTool", callId=call_id, name="f", arguments={}, **members)


AUTHENTICATION: list[tuple[Direction, Any]] = [("client", AUTH), ("server", {"success": True})]
SESSION: list[tuple[Direction, Any]] = [
    *AUTHENTICATION,
    ("client", create("startToolUseSession", {
        "pluginIdentifier": "mcp/sums", "pluginConfigSpecifier": {"type": "direct", "config": {"fields": []}},
    })),
]  # fmt: skip
READY: tuple[Direction, Any] = ("server", packet(type="sessionReady", toolDefinitions=[]))
CANCEL: tuple[Direction, Any] = ("client", packet(type="cancel"))
COMPLETE: tuple[Direction, Any] = ("server", packet(type="toolCallComplete", callId=0, result=None))
WARNING: tuple[Direction, Any] = ("client", {"type": "communicationWarning", "warning": "hm"})


@pytest.mark.parametrize(
    ("frame", "finding"),
    [
        ({**rpc("listLoaded"), "extra": 1}, "unknown field 'extra'"),
        (rpc("listLoaded", call_id=True), "must be integer, is True"),
        (rpc("listLoaded", None), "must be absent"),
        (rpc("tokenize"), "needs 'parameter'"),
        (rpc("predict", {}), "no RPC 'predict'"),
        (rpc("tokenize", {"modelSpecifier": QUERY, "inputString": ""}), "lacks 'specifier'"),
        (rpc("unloadModel", {"identifier": 1}), "must be string"),
        (load(loadTtlMs=0), "must lie within {'type': 'integer', 'minimum': 1}"),
        (predict("user", "hi"), "must be array"),
        (predict("developer", []), "role must be one of"),
        (predict("user", [], temprature=1), "has no place here"),
        (predict("user", [], topKSampling=4.0), "must be integer"),
        (packet(type="cancel"), "never"),
        ("{", "no JSON"),
        ('{"type":"keepAlive","type":"keepAlive"}', "a key stands twice"),
        ('{"type":"rpcCall","endpoint":"x","callId":NaN}', "NaN is no JSON"),
    ],
)
def test_the_listener_finds_each_kind_of_error_in_a_frame(frame: Any, finding: str) -> None:
    check_last("llm", [*AUTHENTICATION, ("client", frame)], finding)


@pytest.mark.parametrize(
    ("frames", "finding"),
    [
        ([("client", {**AUTH, "authVersion": 2})], "the first frame"),
        ([("client", AUTH), ("client", rpc("listLoaded"))], "between the first frame and the server's reply"),
        ([*AUTHENTICATION, *[("client", rpc("listLoaded"))] * 2], "call id 1 was used before"),
        ([*AUTHENTICATION, *[("client", load())] * 2], "channel id 1 was used before"),
        ([*AUTHENTICATION, ("client", load()), CANCEL, CANCEL], "was cancelled before"),
        ([*AUTHENTICATION, *[WARNING] * 6], "5 warnings at most"),
    ],
)
def test_the_listener_finds_each_kind_of_error_in_the_order_of_frames(frames: list[Any], finding: str) -> None:
    check_last("llm", frames, finding)


@pytest.mark.parametrize(
    ("packets", "finding"),
    [
        ([call(0)], "before sessionReady"),
        ([READY, call(1)], "has the callId 0, not 1"),
        ([READY, CANCEL], "must be one of callTool"),
        ([READY, READY], "sessionReady must come first, and once"),
        ([READY, COMPLETE], "call 0 was never made"),
        ([READY, call(0), COMPLETE, COMPLETE], "call 0 has ended before"),
        ([READY, call(0), ("client", packet(type="abortToolCall", callId=0)), COMPLETE], "nothing of it may follow"),
    ],
)
def test_the_listener_finds_each_kind_of_error_in_a_tool_session(packets: list[Any], finding: str) -> None:
    check_last("plugins", [*SESSION, *packets], finding)


def check_last(namespace: str, frames: list[tuple[Direction, Any]], finding: str) -> None:
    """Check that the listener accepts all frames but the last."""
    listener = StrictListener()
    texts = [(direction, frame if isinstance(frame, str) else json.dumps(frame)) for direction, frame in frames]
    for direction, text in texts[:-1]:
        listener.feed(direction, namespace, text)
    with pytest.raises(StrictError) as caught:
        listener.feed(texts[-1][0], namespace, texts[-1][1])
    assert finding in str(caught.value)
    assert str(caught.value).startswith(f"on /{namespace}: ")


@pytest.mark.parametrize("folder", ["client", "langchain", "llama_index"])
def test_what_the_clients_of_a_folder_send_is_checked(folder: str) -> None:
    conftest = importlib.import_module(f"tests.{folder}.conftest")
    assert (conftest.strict_findings, conftest.strict) == (strict_findings, strict)


def test_what_a_client_sends_to_an_emulator_is_checked(emulator: Emulator, strict: Findings) -> None:
    with Client(emulator.address) as client:
        client.llm.list_loaded()
        (connection,) = emulator._started.server.connections
    assert strict.frames == 2
    assert not strict.findings
    strict.receive_frame(connection, "client", "{")
    assert len(strict.findings) == 1
    strict.findings.clear()
