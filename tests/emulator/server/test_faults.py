"""What the faults of scripted models do to a connection."""

import json

import pytest
from websockets.exceptions import ConnectionClosed

from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.emulator.bare_client import TIMEOUT, prediction_request, wire
from tests.emulator.server.hostile import frame, raw_websocket
from tests.emulator.stalling_model import MODEL


def faulty(*steps: object) -> Emulator:
    """Return a server whose model does these steps."""
    return Emulator([ModelEntry(key=MODEL, rules=({"then": list(steps)},), preload=True)])


def test_a_half_closed_connection_still_receives() -> None:
    with faulty({"text": "One"}, {"fault": "half_close"}, {"text": "two"}) as server, wire(server) as me:
        me.open("predict", prediction_request(MODEL))
        with pytest.raises(ConnectionClosed):
            me.receive_until_closed()
        server.wait_for(lambda: server.predictions[-1].state == "ended", TIMEOUT)


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


def read_all(fault: str) -> bytes:
    """Return what a client receives until the connection ends with a fault."""
    opening = {"type": "channelCreate", "endpoint": "predict", "channelId": 1}
    request = json.dumps({**opening, "creationParameter": prediction_request(MODEL)})
    with faulty({"text": "One"}, {"fault": fault}, {"text": "two"}) as server, raw_websocket(server) as line:
        line.sendall(frame(request.encode()))
        received = b""
        while data := line.recv(65536):
            received += data
    return received


def test_a_dropped_connection_is_reset_and_a_half_closed_one_is_not() -> None:
    with pytest.raises(ConnectionResetError):
        read_all("drop")
    received = read_all("half_close")
    assert b"One" in received
    assert b"two" not in received
