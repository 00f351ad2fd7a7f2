"""Frames: latency, several requests at once, faults, handlers that fail, clients that leave."""

import json
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ManualClock
from lmstudio_integrations.emulator.server.handlers import HANDLERS
from lmstudio_integrations.errors import LMStudioValueError
from tests.emulator.bare_client import TIMEOUT, Wire, named, prediction_request, wire
from tests.emulator.server.hostile import frame, raw_websocket
from tests.emulator.stalling_model import MODEL

CALL = {"type": "rpcCall", "endpoint": "listLoaded", "callId": 1}


def prediction(text: str) -> dict[str, Any]:
    """Return the frame that opens a prediction."""
    parameter = prediction_request(MODEL, text)
    return {"type": "channelCreate", "endpoint": "predict", "channelId": 1, "creationParameter": parameter}


@pytest.mark.parametrize(
    ("request_", "response"), [(CALL, "rpcResult"), (prediction("Hello"), "channelSend")], ids=["call", "channel"]
)
def test_with_a_latency_no_response_comes_earlier(request_: dict[str, Any], response: str) -> None:
    clock = ManualClock()
    with Emulator([MODEL], load=[MODEL], clock=clock, latency=60.0) as server, wire(server) as me:
        me.send_frame(request_)
        for _ in range(2):  # with the second one, the latency has begun
            me.send_frame({"type": "keepAlive"})
            assert me.receive()["type"] == "keepAliveAck", "the request is still on its way"
        clock.advance(60.0)
        assert me.receive()["type"] == response


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), "1"])
def test_an_invalid_latency_is_rejected(seconds: Any) -> None:
    with pytest.raises(LMStudioValueError, match="latency must be 0 or more"):
        Emulator([MODEL], latency=seconds)


def test_calls_and_channels_may_have_equal_ids(me: Wire) -> None:
    me.send_frame(prediction("Wait"))
    me.send_frame(CALL)
    frames = [me.receive() for _ in range(4)]
    assert {"rpcResult", "channelSend"} == {each["type"] for each in frames}


def test_pending_frames_are_sent_in_one_write(server: Emulator) -> None:
    with raw_websocket(server) as line:
        get = {"identifier": MODEL, "loadConfigStack": {"layers": []}}
        opening = {"type": "channelCreate", "endpoint": "getOrLoad", "channelId": 1, "creationParameter": get}
        line.sendall(frame(json.dumps(opening).encode()))
        together = line.recv(65536)
        assert b"alreadyLoaded" in together
        assert b"channelClose" in together


def test_a_handler_that_fails_costs_only_its_request(
    me: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    async def return_no_json(*_: object) -> object:
        return object()

    for endpoint, handler in (("listLoaded", return_no_json), ("getModelInfo", fail), ("predict", fail)):
        monkeypatch.setitem(HANDLERS["llm"], endpoint, handler)
    assert "Internal error" in me.rpc_error("listLoaded")["title"]
    specifier = {"specifier": named(MODEL), "throwIfNotFound": True}
    assert "a bug" in me.rpc_error("getModelInfo", specifier)["cause"]
    assert me.stream("predict", prediction_request(MODEL))[-1]["type"] == "error"
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 3
    assert me.result("getLoadConfig", {"specifier": named(MODEL)})


def test_the_requests_of_a_socket_are_cancelled_with_it(server: Emulator) -> None:
    with wire(server) as me:
        me.open("predict", prediction_request(MODEL, "Wait"))
        server.wait_for(lambda: [each.fragments for each in server.predictions] == [1], TIMEOUT)
    server.wait_for(lambda: server.predictions[0].state == "ended", TIMEOUT)
    assert server.predictions[0].stop_reason == "disconnected"
