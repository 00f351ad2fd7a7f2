"""Clients that send too much, read nothing, or are gone: it ends their own connection, and nobody else notices."""

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from lmstudio_integrations.emulator import Emulator, Limits, ModelEntry
from lmstudio_integrations.emulator.server import server as listening
from lmstudio_integrations.emulator.server.limits import MIB
from lmstudio_integrations.errors import LMStudioValueError
from tests.emulator.bare_client import STACK, Wire, named, prediction_request, wire
from tests.emulator.server.hostile import is_closed, lazy, memory_at_most, raw, raw_websocket, send_until_closed

MODEL = "chat"
CHAT = ModelEntry(key=MODEL, preload=True)


def limited(**limits: Any) -> Emulator:
    """Return a server with these limits."""
    return Emulator([CHAT], limits=Limits(**limits))


def still_serves(me: Wire) -> bool:
    """Whether a client gets a response."""
    return bool(me.result("listLoaded"))


def wait_until_replied(me: Wire) -> None:
    """Wait for the reply to a keep-alive, whatever comes before it."""
    me.send_frame({"type": "keepAlive"})
    while me.receive() != {"type": "keepAliveAck"}:
        pass


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with the usual limits."""
    with limited() as emulator:
        yield emulator


@pytest.fixture
def other(server: Emulator) -> Iterator[Wire]:
    """A client that means well."""
    with wire(server, client="guest:other") as opened:
        yield opened


@pytest.mark.parametrize("limits", [{"records": 0}, {"backlog_bytes": -1}, {"message_bytes": None}])
def test_a_limit_that_is_not_positive_is_rejected(limits: dict[str, Any]) -> None:
    with pytest.raises(LMStudioValueError, match=next(iter(limits))):
        Limits(**limits)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_message_that_is_not_utf8_is_not_parsed(server: Emulator, other: Wire, encoding: str) -> None:
    # An escaped quote hides the values that follow from a count of bytes, if the message is not UTF-8.
    values = '["\\"",' + ",".join(["1"] * 1000) + "]"
    with wire(server) as me:
        me.send_frame(f'{{"type":"keepAlive","unused":{values}}}'.encode(encoding))
        assert still_serves(me)  # the next frame is its reply: the keep-alive had none
    assert still_serves(other)


def test_a_message_that_is_too_large_closes_its_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    with limited(message_bytes=10_000) as server, wire(server, client="guest:other") as other:
        with wire(server) as me:
            me.send_frame("x" * 10_001)
            with pytest.raises(ConnectionClosed) as caught:
                me.receive()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
        server.wait_for(lambda: len(server.connections) == 1)
        assert still_serves(other)
    assert "closed the connection of" in caplog.text


@pytest.mark.parametrize("depth", [150, 250, 900, 100_000])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
def test_deep_nesting_costs_a_warning_at_most(server: Emulator, other: Wire, depth: int, begin: str, end: str) -> None:
    nested = begin * depth + "0" + end * depth
    config = f'{{"layers":[{{"layerName":"apiOverride","config":{{"fields":[{{"key":"a","value":{nested}}}]}}}}]}}'
    with wire(server) as me:
        for endpoint, parameter in (
            ("predict", json.dumps(prediction_request(MODEL)).replace(json.dumps(STACK), config)),
            ("loadModel", f'{{"modelKey":"{MODEL}","loadConfigStack":{config}}}'),
            ("predict", nested),
        ):
            me.send_frame(
                f'{{"type":"channelCreate","endpoint":"{endpoint}","channelId":1,"creationParameter":{parameter}}}'
            )
            wait_until_replied(me)
    assert other.stream("predict", prediction_request(MODEL))[-1]["type"] == "success"


def test_an_id_beyond_all_numbers_is_none(server: Emulator) -> None:
    with wire(server) as me:
        for number in ("9" * 20, "-" + "9" * 20, "9" * 4000, "1e999", "true"):
            me.send_frame(f'{{"type":"rpcCall","endpoint":"listLoaded","callId":{number}}}')
            me.send_frame(f'{{"type":"channelCreate","endpoint":"predict","channelId":{number}}}')
        wait_until_replied(me)
        me.send_frame({"type": "rpcCall", "endpoint": "listLoaded", "callId": -(2**53) + 1})
        assert me.receive()["callId"] == -(2**53) + 1


def test_a_parameter_with_very_many_errors_gets_a_short_warning(server: Emulator) -> None:
    parameter = prediction_request(MODEL) | {"history": {"messages": [1] * 50_000}}
    with wire(server) as me:
        me.open("predict", parameter)
        assert "50000 errors" in me.receive()["warning"]


def test_warnings_neither_way_repeat_what_a_client_sends_at_length(
    server: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    with wire(server) as me:
        me.send_frame({"type": "rpcCall", "endpoint": "x" * MIB, "callId": 1})
        assert len(me.receive()["warning"]) < 10_000
        for number in range(20):
            me.send_frame({"type": "communicationWarning", "warning": f"number {number}\n" + "x" * MIB})
        wait_until_replied(me)
    reported = [record.getMessage() for record in caplog.records if "warning from the client" in record.getMessage()]
    assert len(reported) == 5
    assert max(map(len, reported)) < 10_000
    assert "\n" not in reported[0]


def test_a_load_setting_that_json_cannot_carry_back_hurts_nobody(server: Emulator, other: Wire) -> None:
    setting = '{"key":"llm.load.x","value":["\\ud800",1e999]}'
    config = f'{{"layers":[{{"layerName":"apiOverride","config":{{"fields":[{setting}]}}}}]}}'
    with wire(server) as me:
        me.send_frame(
            '{"type":"channelCreate","endpoint":"loadModel","channelId":9,"creationParameter":'
            f'{{"modelKey":"{MODEL}","identifier":"odd","loadConfigStack":{config}}}}}'
        )
        assert [packet["type"] for packet in me.packets(9)][-1] == "success"
    fields = other.result("getLoadConfig", {"specifier": named("odd")})["fields"]
    assert {"key": "llm.load.x", "value": ["\ud800", None]} in fields
    assert other.stream("predict", prediction_request("odd"))[-1]["type"] == "success"


def test_large_results_that_nobody_reads_do_not_pile_up() -> None:
    text = base64.b64encode(b"x" * (MIB // 2)).decode()
    with limited(backlog_bytes=MIB) as server, lazy(server, "files") as me, wire(server) as other:
        uploaded = me.result("uploadFileBase64", {"name": "a.txt", "contentBase64": text})
        with memory_at_most(20 * MIB):
            with suppress(ConnectionClosed):  # as above
                for _ in range(100):
                    me.open("parseDocument", {"fileIdentifier": uploaded["identifier"], "parseOpts": {}})
            server.wait_for(lambda: len(server.connections) == 1, timeout=30)
            assert still_serves(other)


def test_a_client_that_does_not_reply_to_pings_is_dropped_with_its_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_PING_INTERVAL", 0.05)
    monkeypatch.setattr(listening, "_PING_TIMEOUT", 0.2)
    with limited() as server, raw_websocket(server, "files", client="guest:far"):
        server.wait_for(lambda: not server.connections)
        with wire(server, client="guest:far", passkey="another") as again:
            assert still_serves(again), "the client is forgotten"


@pytest.mark.parametrize(
    "part", [b"x" * 1000, b"Header: x\r\n" * 100, b"Header: " + b"x" * 4000 + b"\r\n"], ids=["line", "many", "long"]
)
def test_a_huge_head_is_cut_off(server: Emulator, other: Wire, part: bytes) -> None:
    with raw(server) as line:
        line.sendall(b"GET /lmstudio-greeting HTTP/1.1\r\n")
        assert send_until_closed(line, part, 1000) or is_closed(line)
        assert still_serves(other)


def test_a_client_cannot_stop_the_server(server: Emulator, other: Wire) -> None:
    with wire(server, "system") as me:
        assert "privileged" in me.rpc_error("requestShutdown")["title"]
        assert "HTTP API" in me.rpc_error("startHttpServer", {})["title"]
        assert me.result("stopHttpServer") is None
        assert still_serves(other)


def test_so_many_models_are_loaded_at_once() -> None:
    with limited(loaded_models=2) as server, wire(server) as me:
        me.load(MODEL)
        error = me.stream("loadModel", {"modelKey": MODEL, "loadConfigStack": STACK})[-1]["error"]
        assert "insufficient system resources" in error["title"]
        me.result("unloadModel", {"identifier": f"{MODEL}:2"})
        assert me.load(MODEL)["identifier"] == f"{MODEL}:2"
