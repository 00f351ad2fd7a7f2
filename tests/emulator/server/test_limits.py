"""An admitted client cannot take the server down: each limit holds, and others are served meanwhile. All ours."""

import base64
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, cast

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from lmstudio_integrations.emulator import Emulator, Limits, ModelEntry
from lmstudio_integrations.emulator.server import sockets
from lmstudio_integrations.emulator.server.limits import MIB, has_more_values
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol import envelope
from tests.emulator.bare_client import STACK, TIMEOUT, Wire, bare, named, prediction_request, wire
from tests.emulator.server.hostile import (
    CONTINUATION,
    PING,
    Relay,
    frame,
    is_closed,
    lazy,
    memory_at_most,
    raw,
    raw_websocket,
    send_until_closed,
)

MODEL = "chat"
WAITING = {"when": {"last": "^Wait"}, "then": [{"text": "One"}, {"fault": "stall"}]}
CHAT = ModelEntry(key=MODEL, rules=(WAITING,), preload=True)
LONG = ModelEntry(key=MODEL, rules=({"then": [{"text": " ".join(["word"] * 40_000)}]},), preload=True)
VECTORS = ModelEntry(key="vectors", kind="embedding", embedding_length=8, preload=True)


def limited(*models: ModelEntry, **limits: Any) -> Emulator:
    """Return a server with these limits, and a chat model unless others are named."""
    return Emulator(models or (CHAT,), limits=Limits(**limits))


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


# Messages


@pytest.mark.parametrize(
    ("message", "values"),
    [
        (b"[1,2]", 2),
        (b'{"a":[{}]}', 4),
        (b'{"a":",,[[{{"}', 3),
        (b'{"a":"\\",[\\\\"}', 3),
        (b'["a', 2),
        (b'"\\', 1),
        (b'"a\nb,"', 1),
    ],
)
def test_values_and_separators_are_counted_outside_strings_only(message: bytes, values: int) -> None:
    assert has_more_values(message, values - 1)
    assert not has_more_values(message, values)


@pytest.mark.parametrize(
    "limits",
    [
        {"connections": 0},
        {"upload_bytes": -1},
        {"ping_timeout": float("nan")},
        {"ping_interval": 0},
        {"message_bytes": None},
        {"ping_timeout": None},
    ],
)
def test_a_limit_that_is_not_positive_is_rejected(limits: dict[str, Any]) -> None:
    with pytest.raises(LMStudioValueError, match=next(iter(limits))):
        Limits(**limits)


def test_only_the_pings_can_be_switched_off() -> None:
    assert Limits(ping_interval=None).ping_interval is None


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_message_that_is_not_utf8_is_not_parsed(server: Emulator, other: Wire, encoding: str) -> None:
    # An escaped quote hides the values that follow from a count of bytes, if the message is not UTF-8.
    values = '["\\"",' + ",".join(["1"] * 1000) + "]"
    with wire(server) as me:
        me.send_frame(f'{{"type":"keepAlive","unused":{values}}}'.encode(encoding))
        assert still_serves(me)  # the next frame is its reply: the keep-alive had none
    assert still_serves(other)


@pytest.mark.parametrize(
    "message", ["x" * 10_001, json.dumps([[]] * 101), json.dumps({"a": {"b": [0] * 101}})], ids=["long", "many", "deep"]
)
def test_a_message_that_is_too_large_closes_its_connection_only(message: str, caplog: pytest.LogCaptureFixture) -> None:
    with limited(message_bytes=10_000, message_values=100) as server, wire(server, client="guest:other") as other:
        with wire(server) as me:
            me.send_frame(message)
            with pytest.raises(ConnectionClosed) as caught:
                me.receive()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
        server.wait_for(lambda: len(server.connections) == 1)
        assert still_serves(other)
    assert "closed the connection of" in caplog.text


def test_a_client_that_does_not_close_after_an_oversize_message_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "CLOSE_TIMEOUT", 0.05)
    with limited(message_bytes=10_000) as server, raw_websocket(server) as line:
        opening: dict[str, Any] = {"type": "channelCreate", "endpoint": "predict", "channelId": 1}
        opening["creationParameter"] = prediction_request(MODEL, "Wait")
        line.sendall(frame(json.dumps(opening).encode()))
        server.wait_for(lambda: len(server.predictions) == 1 and server.predictions[0].fragments == 1)
        line.sendall(frame(bytes(10_001)))
        server.wait_for(lambda: not server.connections and server.predictions[0].state == "ended")


def test_a_message_of_endless_empty_fragments_closes_its_connection(server: Emulator, other: Wire) -> None:
    with raw_websocket(server) as line:
        line.sendall(frame(b"{", final=False))
        assert send_until_closed(line, frame(b"", opcode=CONTINUATION, final=False) * 1000, 100) or is_closed(line)
        assert still_serves(other)


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


# Requests that have not ended


def test_a_client_has_so_many_requests_at_once() -> None:
    with limited(requests=3) as server, wire(server) as me, wire(server, client="guest:other") as other:
        channels = [me.open("predict", prediction_request(MODEL, "Wait")) for _ in range(3)]
        server.wait_for(lambda: sum(each.fragments for each in server.predictions) == 3)
        with wire(server, "embedding") as mine:
            error = mine.rpc_error("listLoaded")
        assert "3 requests" in error["title"]
        assert "limit requests" in error["cause"]
        assert still_serves(other)
        for _ in range(9):
            me.receive()
        assert "3 requests" in me.stream("predict", prediction_request(MODEL))[-1]["error"]["title"]
        me.send(channels[0], {"type": "cancel"})
        assert list(me.packets(channels[0]))[-1]["type"] == "success"
        server.wait_for(lambda: server.predictions[0].state == "ended")
        assert still_serves(me)


def test_the_requests_of_a_client_have_so_many_bytes_together() -> None:
    with limited(request_bytes=10_000) as server, wire(server) as me, wire(server, client="guest:other") as other:
        me.open("predict", prediction_request(MODEL, "Wait" + "x" * 8000))
        server.wait_for(lambda: len(server.predictions) == 1 and server.predictions[0].fragments == 1)
        with wire(server) as mine:
            error = mine.rpc_error("tokenize", {"specifier": named(MODEL), "inputString": "x" * 8000})
            assert "request_bytes" in error["cause"]
            assert still_serves(mine)
        assert still_serves(other)


# Uploads


def encoded(size: int) -> str:
    return base64.b64encode(bytes(size)).decode()


def test_uploads_have_a_size_each_and_together() -> None:
    limits: dict[str, int] = {"file_bytes": 5000, "upload_bytes": 10_000}
    with limited(**limits) as server, wire(server, "files") as me, wire(server, "files", "guest:other") as other:
        error = me.rpc_error("uploadFileBase64", {"name": "a", "contentBase64": encoded(5001)})
        assert "5,000 bytes of one uploaded file" in error["title"]
        assert "file_bytes" in error["suggestion"]
        for number in range(2):
            me.result("uploadFileBase64", {"name": str(number), "contentBase64": encoded(4400)})
        error = me.rpc_error("uploadFileBase64", {"name": "2", "contentBase64": encoded(4400)})
        assert "10,000 bytes of uploaded files" in error["title"]
        assert other.result("uploadFileBase64", {"name": "a", "contentBase64": encoded(4400)})["sizeBytes"] == 4400


def test_empty_files_and_long_names_count_too() -> None:
    with limited(upload_bytes=10_000) as server, wire(server, "files") as me:
        assert "upload_bytes" in me.rpc_error("uploadFileBase64", {"name": "x" * 10_000, "contentBase64": ""})["cause"]
        responses = [me.call("uploadFileBase64", {"name": "a", "contentBase64": ""})["type"] for _ in range(30)]
        assert responses[0] == "rpcResult"
        assert responses[-1] == "rpcError"


def test_uploads_make_room_when_their_client_disconnects() -> None:
    with limited(upload_bytes=10_000) as server:
        for _ in range(3):
            with wire(server, "files") as me:
                me.result("uploadFileBase64", {"name": "a", "contentBase64": encoded(8000)})
            server.wait_for(lambda: not server.connections)


def test_a_retrieval_has_so_many_chunks() -> None:
    with limited(VECTORS, retrieval_chunks=100) as server, wire(server, "files") as me:
        identifiers = [
            me.result("uploadFileBase64", {"name": "a.txt", "contentBase64": encoded(60)})["identifier"]
        ] * 10**4
        method = {"type": "recursive-v1", "chunkSize": 1, "chunkOverlap": 0}
        config = {"fields": [{"key": "retrieval.chunkingMethod", "value": method}]}
        packets = me.stream("retrieve", {"query": "x", "fileIdentifiers": identifiers[:1], "config": config})
        assert packets[-1]["type"] == "result"
        packets = me.stream("retrieve", {"query": "x", "fileIdentifiers": identifiers, "config": config})
        assert "100 chunks" in packets[-1]["error"]["title"]
        config["fields"].append({"key": "retrieval.limit", "value": json.loads("1e999")})
        packets = me.stream("retrieve", {"query": "x", "fileIdentifiers": identifiers[:1], "config": config})
        assert packets[-1]["type"] == "result"


# Output that is not read


@pytest.mark.slow
def test_a_hundred_predictions_that_nobody_reads_cost_one_backlog() -> None:
    with (
        limited(LONG, backlog_bytes=MIB) as server,
        wire(server, client="guest:other") as other,
        memory_at_most(64 * MIB),
        lazy(server) as me,
    ):
        with suppress(ConnectionClosed):  # it may be closed before it has asked for all
            for _ in range(100):
                me.open("predict", prediction_request(MODEL))
        assert still_serves(other)
        server.wait_for(lambda: len(server.connections) == 1, timeout=30)
        assert still_serves(other)
        server.wait_for(lambda: all(each.state == "ended" for each in server.predictions))


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


@pytest.mark.slow
def test_output_after_a_closed_connection_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    def count(channel_id: int, message: str) -> str:
        if len(message) > MIB:
            written.append(channel_id)
        return channel_send(channel_id, message)

    channel_send = envelope.channel_send
    with limited(backlog_bytes=MIB) as server, lazy(server, "diagnostics") as me, wire(server, "system") as other:
        for _ in range(200):
            me.open("streamLogs")
        me.send_frame({"type": "keepAlive"})
        assert me.receive() == {"type": "keepAliveAck"}
        monkeypatch.setattr(envelope, "channel_send", count)
        other.result("notify", {"title": "x" * MIB})
        server.wait_for(lambda: len(server.connections) == 1)
    assert len(written) < 20


def test_unread_replies_to_pings_are_limited() -> None:
    with limited(backlog_bytes=100_000) as server, wire(server) as other, raw_websocket(server) as line:
        assert send_until_closed(line, frame(bytes(125), opcode=PING) * 1000, 1000)
        assert still_serves(other)


# Lines that are dead


@pytest.mark.slow
def test_a_client_behind_a_dead_connection_is_dropped_with_its_uploads(caplog: pytest.LogCaptureFixture) -> None:
    with (
        limited(CHAT, ping_interval=0.05, ping_timeout=1.0) as server,
        wire(server, client="guest:other") as other,
        Relay(server) as relay,
        through(relay, "llm") as me,
        through(relay, "files") as files,
    ):
        files.result("uploadFileBase64", {"name": "a", "contentBase64": "AAAA"})
        me.open("predict", prediction_request(MODEL, "Wait"))
        server.wait_for(lambda: len(server.predictions) == 1 and server.predictions[0].fragments == 1)
        relay.truncate()
        server.wait_for(lambda: len(server.connections) == 1, timeout=10)
        server.wait_for(lambda: server.predictions[0].stop_reason == "disconnected")
        assert still_serves(other)
        with wire(server, client="guest:far", passkey="another") as again:
            assert still_serves(again), "the client and its uploads are forgotten"
    assert "did not reply to a ping" in caplog.text


@pytest.mark.slow
def test_a_dead_connection_is_detected_during_a_long_response() -> None:
    with (
        limited(LONG, ping_interval=0.05, ping_timeout=1.0) as server,
        wire(server, client="guest:other") as other,
        Relay(server) as relay,
        through(relay, "llm") as me,
    ):
        relay.truncate()
        me.open("predict", prediction_request(MODEL))
        server.wait_for(lambda: len(server.connections) == 1, timeout=10)
        assert still_serves(other)


@contextmanager
def through(relay: Relay, namespace: str) -> Iterator[Wire]:
    """Open a socket through a relay, authenticated."""
    with connect(f"ws://{relay.address}/{namespace}", compression=None, close_timeout=0.1) as opened:
        me = Wire(opened)
        me.send_frame({"authVersion": 1, "clientIdentifier": "guest:far", "clientPasskey": "secret"})
        assert me.receive() == {"success": True}
        yield me


def test_a_silent_client_that_replies_to_pings_stays() -> None:
    with limited(ping_interval=0.01, ping_timeout=TIMEOUT) as server, raw_websocket(server) as line:
        for _ in range(3):
            assert line.recv(2) == b"\x89\x00"
            line.sendall(frame(b"", opcode=10))
        assert len(server.connections) == 1


def test_pings_can_be_switched_off() -> None:
    with limited(ping_interval=None) as server, wire(server) as me:
        assert still_serves(me)


# Connections


def test_clients_that_never_authenticate_give_way() -> None:
    with limited(connections=20) as server, wire(server, client="guest:first") as first, ExitStack() as stack:
        idle = [stack.enter_context(raw(server)) for _ in range(30)]
        half = [stack.enter_context(bare(server)) for _ in range(30)]
        with wire(server, client="guest:late") as late:
            assert still_serves(late)
            assert still_serves(first)
        assert is_closed(idle[0])
        with pytest.raises(ConnectionClosed):
            half[0].receive()


def test_a_socket_that_is_closed_already_takes_no_connection() -> None:
    pool = sockets.SocketPool(1)
    closed = cast("sockets.Socket", object())
    pool.add(closed)
    pool.discard(closed)
    pool.on_authenticated(closed)  # its credentials were still in the queue of messages
    assert not pool.is_full


def test_one_client_cannot_take_all_connections() -> None:
    with limited(client_connections=2) as server, wire(server), wire(server, "files"), bare(server) as third:
        third.send_frame({"authVersion": 1, "clientIdentifier": "guest:me", "clientPasskey": "secret"})
        assert third.receive()["error"] == "Failed to validate client: This server allows 2 connections of one client"
        with pytest.raises(ConnectionClosed):
            third.receive()
        with wire(server, client="guest:other") as other:
            assert still_serves(other)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_there_are_never_more_connections_than_files_that_can_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    def opened(files: int) -> int:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
        return sockets.affordable(1000)

    assert opened(1024) == 1024 - sockets.RESERVED_FILES
    assert opened(100_000) == 1000
    assert opened(resource.RLIM_INFINITY) == 1000
    assert opened(10) == sockets.SPARE_SOCKETS


def test_without_the_module_that_knows_all_are_affordable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert sockets.affordable(10**6) == 10**6


# HTTP


def test_a_request_that_never_ends_is_cut_off() -> None:
    with limited(handshake_timeout=0.1) as server, wire(server) as other, raw(server) as line:
        line.sendall(b"GET /llm HTTP/1.1\r\nHost")
        assert is_closed(line)
        assert still_serves(other)


@pytest.mark.parametrize(
    "part", [b"x" * 1000, b"Header: x\r\n" * 100, b"Header: " + b"x" * 4000 + b"\r\n"], ids=["line", "many", "long"]
)
def test_a_huge_head_is_cut_off(server: Emulator, other: Wire, part: bytes) -> None:
    with raw(server) as line:
        line.sendall(b"GET /lmstudio-greeting HTTP/1.1\r\n")
        assert send_until_closed(line, part, 1000) or is_closed(line)
        assert still_serves(other)


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_huge_body_is_not_kept(server: Emulator, other: Wire, method: bytes) -> None:
    with raw(server) as line, memory_at_most(20 * MIB):
        line.sendall(method + b" /lmstudio-greeting HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        assert send_until_closed(line, bytes(65536), 15_000)
        assert still_serves(other)


def test_a_client_that_is_not_authenticated_cannot_send_much(server: Emulator, other: Wire) -> None:
    with bare(server) as me:
        me.send_frame("x" * 200_000)
        with pytest.raises(ConnectionClosed):
            me.receive()
        assert still_serves(other)


# What a client may ask of the server as such


def test_a_client_cannot_stop_the_server(server: Emulator, other: Wire) -> None:
    with wire(server, "system") as me:
        assert "privileged" in me.rpc_error("requestShutdown")["title"]
        assert "HTTP API" in me.rpc_error("startHttpServer", {})["title"]
        assert me.result("stopHttpServer") is None
        assert still_serves(other)


def test_experiment_flags_have_a_number_and_a_length(server: Emulator) -> None:
    with wire(server, "system") as me:
        for number in range(100):
            me.result("setExperimentFlag", {"code": f"f{number}", "value": True})
        assert me.result("setExperimentFlag", {"code": "f1", "value": True}) is None
        assert "100 experiment flags" in me.rpc_error("setExperimentFlag", {"code": "more", "value": True})["title"]
        me.result("setExperimentFlag", {"code": "f1", "value": False})
        assert me.rpc_error("setExperimentFlag", {"code": "x" * 257, "value": True})
        assert len(me.result("getExperimentFlags")) == 99


def test_so_many_models_are_loaded_at_once() -> None:
    with limited(loaded_models=2) as server, wire(server) as me:
        me.load(MODEL)
        error = me.stream("loadModel", {"modelKey": MODEL, "loadConfigStack": STACK})[-1]["error"]
        assert "insufficient system resources" in error["title"]
        me.result("unloadModel", {"identifier": f"{MODEL}:2"})
        assert me.load(MODEL)["identifier"] == f"{MODEL}:2"
