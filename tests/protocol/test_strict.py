"""The strict listener finds each kind of error; what it must accept, the tests of every client send."""

import importlib
import json
from typing import Any

import pytest
from websockets.sync.client import connect

from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.emulator import Emulator
from tests.protocol.samples import EMPTY_STACK, PLUGIN, QUERY, channel_create, channel_send, rpc_call
from tests.support.strict.fixture import Findings, strict, strict_findings
from tests.support.strict.listener import Direction, StrictError, StrictListener

__all__ = ["strict", "strict_findings"]

AUTH = {"authVersion": 1, "clientIdentifier": "guest:1", "clientPasskey": "secret"}


def load(**fields: Any) -> dict[str, Any]:
    """Return the frame that gets or loads a model."""
    return channel_create("getOrLoad", {"identifier": "m", "loadConfigStack": EMPTY_STACK, **fields})


def predict(role: str, content: Any, **settings: Any) -> dict[str, Any]:
    """Return the frame that opens a prediction, with settings by their keys."""
    fields = [{"key": f"llm.prediction.{key}", "value": value} for key, value in settings.items()]
    stack = {"layers": [{"layerName": "apiOverride", "config": {"fields": fields}}]}
    history = {"messages": [{"role": role, "content": content}]}
    return channel_create("predict", {"modelSpecifier": QUERY, "history": history, "predictionConfigStack": stack})


def call(call_id: Any, **members: Any) -> tuple[Direction, Any]:
    return "client", channel_send({"type": "callTool", "callId": call_id, "name": "f", "arguments": {}, **members})


AUTHENTICATION: list[tuple[Direction, Any]] = [("client", AUTH), ("server", {"success": True})]
SESSION: list[tuple[Direction, Any]] = [
    *AUTHENTICATION,
    ("client", channel_create("startToolUseSession", PLUGIN)),
]
READY: tuple[Direction, Any] = ("server", channel_send({"type": "sessionReady", "toolDefinitions": []}))
CANCEL: tuple[Direction, Any] = ("client", channel_send({"type": "cancel"}))
COMPLETE: tuple[Direction, Any] = ("server", channel_send({"type": "toolCallComplete", "callId": 0, "result": None}))
ABORT: tuple[Direction, Any] = ("client", channel_send({"type": "abortToolCall", "callId": 0}))
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
        (rpc_call("unloadModel", {"identifier": 1}), "must be string"),
        (load(loadTtlMs=0), "must lie within {'type': 'integer', 'minimum': 1}"),
        (predict("user", "hi"), "must be array"),
        (predict("developer", []), "role must be one of"),
        (predict("user", [], temprature=1), "has no place here"),
        (predict("user", [], topKSampling=4.0), "must be integer"),
        (channel_send({"type": "cancel"}), "never"),
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
        ([("client", AUTH), ("client", rpc_call("listLoaded"))], "between the first frame and the server's reply"),
        ([*AUTHENTICATION, *[("client", rpc_call("listLoaded"))] * 2], "call id 1 was used before"),
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
        (
            [READY, call(0), ("client", channel_send({"type": "abortToolCall", "callId": 0})), COMPLETE],
            "nothing of it may follow",
        ),
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
    assert (strict.frames, strict.findings) == (2, [])
    with connect(f"ws://{emulator.address}/llm") as socket:
        socket.send("{")
    assert len(strict.findings) == 1
    strict.findings.clear()
