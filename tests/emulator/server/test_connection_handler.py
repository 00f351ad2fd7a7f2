"""Frames: valid and invalid ones, faults, slow readers, latency."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from lmstudio_integrations.emulator import Emulator, Limits, ManualClock, ModelEntry
from lmstudio_integrations.emulator.models.clock import Timer
from lmstudio_integrations.errors import LMStudioValueError
from tests.emulator.bare_client import TIMEOUT, Wire, named, prediction_request, wire
from tests.emulator.server.hostile import UPGRADE, frame, lazy
from tests.emulator.stalling_model import LONG, MODEL, WAITING, credentials

LATENCY = 60.0


def prediction(text: str) -> dict[str, Any]:
    """Return the frame that opens a prediction."""
    parameter = prediction_request(MODEL, text)
    return {"type": "channelCreate", "endpoint": "predict", "channelId": 1, "creationParameter": parameter}


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with one scripted model, loaded, that stalls on request."""
    with Emulator([ModelEntry(key=MODEL, rules=(WAITING,), preload=True)]) as emulator:
        yield emulator


class WatchedClock(ManualClock):
    """A clock that stands still, and tells when a latency begins."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Semaphore(0)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        timer = super().call_later(seconds, callback)
        if seconds == LATENCY:
            self.begun.release()
        return timer


@pytest.mark.parametrize(
    "request_",
    [
        {"type": "rpcCall", "endpoint": "listLoaded", "callId": 1},
        prediction("Hello"),
    ],
    ids=["call", "channel"],
)
def test_with_a_latency_no_response_comes_earlier(request_: dict[str, Any]) -> None:
    clock = WatchedClock()
    with Emulator([MODEL], load=[MODEL], clock=clock, latency=LATENCY) as server, wire(server) as me:
        me.send_frame(request_)
        assert clock.begun.acquire(timeout=TIMEOUT)
        me.send_frame({"type": "keepAlive"})
        assert me.receive()["type"] == "keepAliveAck", "the request is still on its way"
        clock.advance(LATENCY)
        assert me.receive()["type"] == {"rpcCall": "rpcResult", "channelCreate": "channelSend"}[request_["type"]]


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), "1", None, 10**400])
def test_an_invalid_latency_is_rejected(seconds: Any) -> None:
    with pytest.raises(LMStudioValueError, match="latency must be 0 or more"):
        Emulator([MODEL], latency=seconds)


def test_calls_and_channels_may_have_equal_ids(me: Wire) -> None:
    me.send_frame(prediction("Wait"))
    me.send_frame({"type": "rpcCall", "endpoint": "listLoaded", "callId": 1})
    frames = [me.receive() for _ in range(4)]
    assert {"rpcResult", "channelSend"} == {each["type"] for each in frames}


def test_a_stalled_prediction_delays_nothing(me: Wire) -> None:
    channel = me.open("predict", prediction_request(MODEL, "Wait"))
    for _ in range(3):
        assert me.receive()["channelId"] == channel
    assert len(me.result("listLoaded")) == 1


def test_packets_of_a_channel_come_in_order_and_end_with_its_close(me: Wire) -> None:
    packets = me.stream("predict", prediction_request(MODEL, "Hello you"))
    kinds = [packet["type"] for packet in packets]
    assert kinds == ["promptProcessingProgress"] * 2 + ["fragment"] * (len(kinds) - 3) + ["success"]
    text = "".join(packet["fragment"]["content"] for packet in packets[2:-1])
    assert "Hello you" in text


def test_pending_frames_are_sent_in_one_write(server: Emulator) -> None:
    with wire(server) as me, socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as line:
        me.result("listLoaded")
        line.sendall(UPGRADE % b"llm")
        assert line.recv(4096).startswith(b"HTTP/1.1 101")
        line.sendall(frame(json.dumps(credentials()).encode()))
        assert b'{"success":true}' in line.recv(4096)
        get = {"identifier": MODEL, "loadConfigStack": {"layers": []}}
        opening = {"type": "channelCreate", "endpoint": "getOrLoad", "channelId": 1, "creationParameter": get}
        line.sendall(frame(json.dumps(opening).encode()))
        together = line.recv(65536)
        assert b"alreadyLoaded" in together
        assert b"channelClose" in together


def test_an_invalid_packet_gets_a_warning_and_the_channel_continues(me: Wire) -> None:
    channel = me.open("predict", prediction_request(MODEL, "Wait"))
    for _ in range(3):
        me.receive()
    me.send(channel, {"type": "stop"})
    assert me.receive()["kind"] == "channelMessageTypeError"
    me.send(channel, {"type": "cancel"})
    assert next(me.packets(channel))["type"] == "success"


def test_a_handler_that_fails_costs_only_its_request(
    server: Emulator, me: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    from lmstudio_integrations.emulator.server.handlers import HANDLERS

    monkeypatch.setitem(HANDLERS["llm"], "listLoaded", fail)
    monkeypatch.setitem(HANDLERS["llm"], "predict", fail)
    assert "a bug" in me.rpc_error("listLoaded")["cause"]
    assert me.stream("predict", prediction_request(MODEL))[-1]["type"] == "error"
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 2
    assert me.result("getLoadConfig", {"specifier": named(MODEL)})


def test_a_result_that_is_no_json_is_an_error(me: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    async def response(*_: object) -> object:
        return object()

    from lmstudio_integrations.emulator.server.handlers import HANDLERS

    monkeypatch.setitem(HANDLERS["llm"], "listLoaded", response)
    assert "Internal error" in me.rpc_error("listLoaded")["title"]


def test_a_warning_of_the_client_is_logged(me: Wire, caplog: pytest.LogCaptureFixture) -> None:
    me.send_frame({"type": "communicationWarning", "warning": "I do not understand", "kind": "unknown"})
    me.send_frame({"type": "keepAlive"})
    me.receive()
    assert "I do not understand" in caplog.text


def faulty(*steps: object) -> Emulator:
    """Return a server whose model does these steps."""
    return Emulator([ModelEntry(key=MODEL, rules=({"then": list(steps)},), preload=True)])


def test_a_half_closed_connection_still_receives() -> None:
    with faulty({"text": "One"}, {"fault": "half_close"}, {"text": "two"}) as server, wire(server) as me:
        me.open("predict", prediction_request(MODEL))
        with pytest.raises(ConnectionClosed):
            me.receive_until_closed()
        server.wait_for(lambda: server.predictions[-1].state == "ended")


def test_a_corrupt_frame_is_invalid_json_and_the_prediction_continues() -> None:
    with faulty({"text": "One"}, {"fault": "corrupt"}, {"text": " two"}) as server, wire(server) as me:
        me.open("predict", prediction_request(MODEL))
        frames = [me.socket.recv(TIMEOUT) for _ in range(6)]
        with pytest.raises(json.JSONDecodeError):
            json.loads(frames[3])
        assert "success" in str(frames[5])


def test_an_unknown_packet_comes_on_the_channel() -> None:
    with faulty({"fault": "unknown_packet"}, {"text": "One"}) as server, wire(server) as me:
        kinds = [packet["type"] for packet in me.stream("predict", prediction_request(MODEL))]
        assert kinds == ["promptProcessingProgress"] * 2 + ["unheardOf", "fragment", "success"]


@pytest.mark.slow
def test_a_client_that_does_not_read_is_disconnected_and_blocks_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with Emulator([LONG], limits=Limits(backlog_bytes=100_000)) as server, lazy(server) as other, wire(server) as me:
        other.open("predict", prediction_request(MODEL))
        assert me.result("listLoaded")
        server.wait_for(lambda: len(server.connections) == 1, timeout=600)
        assert me.result("listLoaded")
        server.wait_for(lambda: all(each.state == "ended" for each in server.predictions))
    assert "does not read" in caplog.text
    assert ": the client disconnected" in caplog.text


def test_the_requests_of_a_socket_are_cancelled_with_it(server: Emulator) -> None:
    with wire(server) as me:
        me.open("predict", prediction_request(MODEL, "Wait"))
        server.wait_for(lambda: len(server.predictions) == 1 and server.predictions[0].fragments == 1)
    server.wait_for(lambda: server.predictions[0].state == "ended")
    assert server.predictions[0].stop_reason == "disconnected"
