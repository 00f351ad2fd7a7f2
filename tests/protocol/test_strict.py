"""The strict listener finds each kind of error; what it must accept, the tests of every client send."""

import importlib
import json
from typing import Any

import pytest
from websockets.sync.client import connect

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from tests.protocol.samples import (
    GET_M1,
    PLUGIN,
    PREDICT_HELLO,
    QUERY,
    channel_create,
    channel_send,
    rpc_call,
)
from tests.support.strict.fixture import Findings, strict, strict_findings
from tests.support.strict.listener import Direction, StrictError, StrictListener
from tests.support.strict.shapes import ADD_SCHEMA

__all__ = ["strict", "strict_findings"]

AUTH = {"authVersion": 1, "clientIdentifier": "guest:1", "clientPasskey": "secret"}
Frames = list[tuple[Direction, Any]]


def predict(**members: Any) -> dict[str, Any]:
    """Return the frame that opens a prediction."""
    return channel_create("predict", {**PREDICT_HELLO, **members})


def with_setting(key: str, value: Any) -> dict[str, Any]:
    """Return the frame of a prediction with a setting."""
    config = {"fields": [{"key": f"llm.prediction.{key}", "value": value}]}
    return predict(predictionConfigStack={"layers": [{"layerName": "apiOverride", "config": config}]})


def call(call_id: int) -> tuple[Direction, Any]:
    return "client", channel_send({"type": "callTool", "callId": call_id, "name": "f", "arguments": {}})


def packet(by: Direction, kind: str, **members: Any) -> tuple[Direction, Any]:
    return by, channel_send({"type": kind, **members})


AUTHENTICATION: Frames = [("client", AUTH), ("server", {"success": True})]
SESSION: Frames = [*AUTHENTICATION, ("client", channel_create("startToolUseSession", PLUGIN))]
READY = packet("server", "sessionReady", toolDefinitions=[])
CANCEL = packet("client", "cancel")
COMPLETE = packet("server", "toolCallComplete", callId=0, result=None)
ABORT = packet("client", "abortToolCall", callId=0)
LOAD: tuple[Direction, Any] = ("client", channel_create("getOrLoad", GET_M1))
LIST: tuple[Direction, Any] = ("client", rpc_call("listLoaded"))
WARNING: tuple[Direction, Any] = ("client", {"type": "communicationWarning", "warning": "hm"})


@pytest.mark.parametrize(
    ("frame", "finding"),
    [
        ({**rpc_call("listLoaded"), "extra": 1}, "unknown field 'extra'"),
        (rpc_call("listLoaded", call_id=True), "must be integer, is True"),
        (rpc_call("listLoaded", None), "must be absent"),
        (rpc_call("tokenize"), "needs 'parameter'"),
        (rpc_call("predict", {}), "no RPC 'predict'"),
        (rpc_call("tokenize", {"modelSpecifier": QUERY, "inputString": ""}), "lacks 'specifier'"),
        (channel_create("getOrLoad", {**GET_M1, "loadTtlMs": 0}), "must lie within {'type': 'integer', 'minimum': 1}"),
        (predict(history={"messages": [{"role": "developer", "content": []}]}), "role must be one of"),
        (with_setting("temprature", 1), f"has no place here; {ADD_SCHEMA}"),
        (with_setting("topKSampling", 4.0), "must be integer"),
        (channel_send({"type": "cancel"}), "never"),
        ("{", "no JSON"),
        ('{"type":"keepAlive","type":"keepAlive"}', "a key stands twice"),
        ('{"type":"rpcCall","endpoint":"x","callId":NaN}', "NaN is no JSON"),
    ],
)
def test_the_listener_finds_each_kind_of_error_in_a_frame(frame: Any, finding: str) -> None:
    check_last("llm", [*AUTHENTICATION, ("client", frame)], finding)


@pytest.mark.parametrize(
    ("namespace", "frames", "finding"),
    [
        ("llm", [("client", {**AUTH, "authVersion": 2})], "the first frame"),
        ("llm", [("client", AUTH), LIST], "between the first frame and the server's reply"),
        ("llm", [*AUTHENTICATION, LIST, LIST], "call id 1 was used before"),
        ("llm", [*AUTHENTICATION, LOAD, LOAD], "channel id 1 was used before"),
        ("llm", [*AUTHENTICATION, LOAD, CANCEL, CANCEL], "was cancelled before"),
        ("llm", [*AUTHENTICATION, *[WARNING] * 6], "5 warnings at most"),
        ("plugins", [*SESSION, call(0)], "before sessionReady"),
        ("plugins", [*SESSION, READY, call(1)], "has the callId 0, not 1"),
        ("plugins", [*SESSION, READY, CANCEL], "must be one of callTool"),
        ("plugins", [*SESSION, READY, READY], "sessionReady must come first, and once"),
        ("plugins", [*SESSION, READY, COMPLETE], "call 0 was never made"),
        ("plugins", [*SESSION, READY, call(0), COMPLETE, COMPLETE], "call 0 has ended before"),
        ("plugins", [*SESSION, READY, call(0), ABORT, COMPLETE], "nothing of it may follow"),
    ],
)
def test_the_listener_finds_each_kind_of_error_in_the_order_of_frames(
    namespace: str, frames: Frames, finding: str
) -> None:
    check_last(namespace, frames, finding)


def check_last(namespace: str, frames: Frames, finding: str) -> None:
    """Check that the listener accepts all frames but the last."""
    listener = StrictListener()
    *accepted, (by, last) = frames
    for direction, frame in accepted:
        listener.feed(direction, namespace, json.dumps(frame))
    with pytest.raises(StrictError) as caught:
        listener.feed(by, namespace, last if isinstance(last, str) else json.dumps(last))
    assert finding in str(caught.value)
    assert str(caught.value).startswith(f"on /{namespace}: ")


@pytest.mark.parametrize("folder", ["client", "langchain", "llama_index"])
def test_what_the_clients_of_a_folder_send_is_checked(folder: str) -> None:
    conftest = importlib.import_module(f"tests.{folder}.conftest")
    assert (conftest.strict_findings, conftest.strict) == (strict_findings, strict)


def test_what_a_client_sends_to_an_emulator_is_checked(emulator: Emulator, strict: Findings) -> None:
    with lms.Client(emulator.address) as client:
        client.llm.list_loaded()
    assert (strict.frames, strict.findings) == (2, [])
    with connect(f"ws://{emulator.address}/llm") as socket:
        for text in (json.dumps(AUTH), "{", '{"type":"keepAlive"}'):
            socket.send(text)
        assert [json.loads(socket.recv()) for _ in range(2)] == [{"success": True}, {"type": "keepAliveAck"}]
    assert len(strict.findings) == 1
    strict.findings.clear()
