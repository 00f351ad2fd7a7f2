"""The authenticator of the emulator: HTTP, credentials, frames that are wrong, and the way out."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from lmstudio_integrations.emulator import Emulator, Limits, ManualClock, ModelEntry, authentication
from lmstudio_integrations.emulator.clock import Timer
from lmstudio_integrations.emulator.emulator import netloc
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine
from lmstudio_integrations.errors import LMStudioOSError, LMStudioRuntimeError, LMStudioTimeoutError, LMStudioValueError
from tests.emulator.hostile import UPGRADE, frame, lazy
from tests.emulator.wire import TIMEOUT, Wire, asking, bare, named, wire
from tests.requirements import proves

TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"
MODEL = "chat"
LATENCY = 60.0
WAITING = {"when": {"last": "^Wait"}, "then": [{"text": "One"}, {"fault": "stall"}]}
NAMESPACES = ("llm", "embedding", "system", "files", "repository", "diagnostics", "runtime", "plugins")


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with one scripted model, loaded, that stalls when it is told to wait."""
    with Emulator([ModelEntry(key=MODEL, rules=(WAITING,), preload=True)]) as emulator:
        yield emulator


@pytest.fixture
def me(server: Emulator) -> Iterator[Wire]:
    """A socket for language models."""
    with wire(server) as opened:
        yield opened


def get(server: Emulator, path: str, **headers: str) -> tuple[int, str, str]:
    """Return status, content type and body of a plain GET."""
    request = urllib.request.Request(f"http://{server.address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


@proves("S-HTTP-GREETING")
def test_the_greeting_says_that_this_is_lm_studio(server: Emulator) -> None:
    assert get(server, "/lmstudio-greeting") == (200, "application/json", '{"lmstudio":true}')


@proves("S-HTTP-STATUS")
def test_the_status_names_package_and_version(server: Emulator) -> None:
    status, _, body = get(server, "/lms-status")
    found = json.loads(body)
    assert (status, found["package"]) == (200, "lmstudio")
    assert isinstance(found["version"], str)


@proves("S-HTTP-UNKNOWN-PATH")
def test_an_unknown_path_is_not_found(server: Emulator) -> None:
    assert get(server, "/nothing")[0] == 404
    with pytest.raises(InvalidStatus) as caught, bare(server, "nothing"):
        pass
    assert caught.value.response.status_code == 404


@proves("S-HTTP-UNKNOWN-PATH")
def test_only_get_finds_anything(server: Emulator) -> None:
    request = urllib.request.Request(f"http://{server.address}/v1/chat/completions", data=b"{}", method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=TIMEOUT)
    with caught.value as error:
        assert error.code == 404


def test_a_namespace_wants_a_websocket(server: Emulator) -> None:
    assert get(server, "/llm")[0] == 426


@proves("S-HTTP-ORIGIN")
def test_browsers_are_refused_unless_their_origin_is_allowed() -> None:
    with Emulator([MODEL], origins=["http://good.example"]) as server:
        assert get(server, "/lmstudio-greeting", Origin="http://bad.example")[0] == 403
        with pytest.raises(InvalidStatus) as caught, bare(server, origin="http://bad.example"):
            pass
        assert caught.value.response.status_code == 403
        with wire(server, origin="http://good.example") as me:
            assert me.result("listLoaded") == []


@proves("S-WS-NAMESPACES")
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_namespace_lets_a_client_in(server: Emulator, namespace: str) -> None:
    with wire(server, namespace):
        assert [(each.namespace, each.client) for each in server.connections] == [(namespace, "guest:me")]


def test_too_many_connections_are_refused() -> None:
    with Emulator([MODEL], limits=Limits(connections=1)) as server, wire(server):
        with pytest.raises(InvalidStatus) as caught, bare(server):
            pass
        assert caught.value.response.status_code == 503


@proves("S-WS-BINARY")
def test_binary_frames_are_read_as_text(me: Wire) -> None:
    me.say(json.dumps({"type": "keepAlive"}).encode())
    assert me.hear() == {"type": "keepAliveAck"}


@proves("S-WS-TEXT-FRAMES")
def test_answers_are_text(me: Wire) -> None:
    me.say({"type": "keepAlive"})
    assert isinstance(me.socket.recv(TIMEOUT), str)


@proves("S-WS-LARGE-FRAMES")
def test_a_frame_of_many_megabytes_is_taken(server: Emulator) -> None:
    with wire(server, "files") as me:
        found = me.result("uploadFileBase64", {"name": "big.bin", "contentBase64": "AAAA" * 2_000_000})
    assert found["sizeBytes"] == 6_000_000


def test_an_oversize_frame_costs_its_socket_and_no_other() -> None:
    with Emulator([MODEL], limits=Limits(message_bytes=1000)) as server, wire(server) as other:
        with wire(server) as me:
            me.say("x" * 1001)
            with pytest.raises(ConnectionClosed):
                me.socket.recv(TIMEOUT)
        assert other.result("listLoaded") == []


# Credentials


def credentials(client: object = "guest:me", passkey: object = "secret") -> dict[str, object]:
    return {"authVersion": 1, "clientIdentifier": client, "clientPasskey": passkey}


@proves("S-AUTH-FIRST")
def test_a_guest_comes_in(server: Emulator) -> None:
    with bare(server) as me:
        me.say(credentials())
        assert me.hear() == {"success": True}


@proves("S-AUTH-IGNORES-NOISE", "S-AUTH-LENGTH")
def test_what_does_not_look_like_credentials_is_ignored(server: Emulator) -> None:
    with bare(server) as me:
        for noise in ("{", "[]", {"type": "keepAlive"}, {**credentials(), "authVersion": 2}, credentials(1, "x")):
            me.say(noise)
        me.say(credentials("x" * 257))
        me.say(credentials())
        assert me.hear() == {"success": True}


@proves("S-AUTH-FIRST-COME", "S-AUTH-FAILURE-CLOSES")
def test_the_first_socket_fixes_the_passkey(server: Emulator, me: Wire) -> None:
    with bare(server) as other:
        other.say(credentials(passkey="another"))
        assert other.hear() == {
            "success": False,
            "error": 'Failed to validate client: Invalid client passkey for client "guest:me"',
        }
        with pytest.raises(ConnectionClosed):
            other.socket.recv(TIMEOUT)


@proves("S-AUTH-REUSE")
def test_an_identifier_is_free_again_when_its_client_has_gone(server: Emulator) -> None:
    with wire(server), wire(server, "system"):
        pass
    server.wait_for(lambda: not server.connections)
    with wire(server, passkey="another"):
        pass


@proves("S-AUTH-TIMEOUT")
def test_a_client_that_does_not_say_who_it_is_is_turned_away() -> None:
    clock = ManualClock()
    with Emulator([MODEL], clock=clock) as server, bare(server) as silent, wire(server) as known:
        clock.advance(10)
        assert silent.hear() == {"success": False, "error": "Authentication timed out"}
        with pytest.raises(ConnectionClosed):
            silent.socket.recv(TIMEOUT)
        assert known.result("listLoaded") == []


@proves("S-AUTH-TOKEN")
def test_only_the_halves_of_a_token_are_accepted() -> None:
    with Emulator([MODEL], tokens=[TOKEN]) as server:
        for client, passkey in (("guest:me", "secret"), ("abcdefgh", "0" * 20), ("zzzzzzzz", "0123456789abcdefghij")):
            with bare(server) as other:
                other.say(credentials(client, passkey))
                assert other.hear()["success"] is False
        with wire(server, client="abcdefgh", passkey="0123456789abcdefghij") as me:
            assert me.result("listLoaded") == []


def test_the_error_does_not_say_which_half_of_a_token_is_wrong() -> None:
    with Emulator([MODEL], tokens=[TOKEN]) as server:
        errors: set[object] = set()
        for client, passkey in (("abcdefgh", "0" * 20), ("zzzzzzzz", "0123456789abcdefghij"), ("guest:me", "\ud800")):
            with bare(server) as other:
                other.say(credentials(client, passkey))
                errors.add(other.hear()["error"])
    assert len(errors) == 1


def test_every_token_is_compared_in_constant_time_whatever_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, expected: bytes) -> bool:
        compared.append((given, expected))
        return given == expected

    monkeypatch.setattr(authentication, "compare_digest", compare)
    tokens = [TOKEN, "sk-lm-zyxwvuts:0123456789abcdefghij"]
    authenticator = authentication.Authenticator(tokens)
    for identifier, passkey, known in (
        ("abcdefgh", "0" * 20, False),
        ("x", "y", False),
        (TOKEN[6:14], TOKEN[15:], True),
    ):
        compared.clear()
        assert (authenticator.why_rejected(identifier, passkey) is None) is known
        assert [expected for _, expected in compared] == [token[6:].encode() for token in tokens]
    guests = authentication.Authenticator()
    guests.connect("me", "mine")
    compared.clear()
    assert guests.why_rejected("me", "yours")
    assert compared == [(b"yours", b"mine")]


def test_a_malformed_token_is_refused_without_showing_it() -> None:
    with pytest.raises(LMStudioValueError, match="malformed") as caught:
        Emulator([MODEL], tokens=["sk-lm-hidden"])
    assert "hidden" not in str(caught.value)


# Latency


class WatchedClock(ManualClock):
    """A clock that stands still, and tells when a latency begins."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Semaphore(0)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = super().call_later(seconds, callback)
        if seconds == LATENCY:
            self.begun.release()
        return timer


@pytest.mark.parametrize(
    "request_",
    [
        {"type": "rpcCall", "endpoint": "listLoaded", "callId": 1},
        {"type": "channelCreate", "endpoint": "predict", "channelId": 1, "creationParameter": asking(MODEL)},
    ],
    ids=["call", "channel"],
)
def test_with_a_latency_nothing_is_answered_before_that_time(request_: dict[str, Any]) -> None:
    clock = WatchedClock()
    with Emulator([MODEL], load=[MODEL], clock=clock, latency=LATENCY) as server, wire(server) as me:
        me.say(request_)
        assert clock.begun.acquire(timeout=TIMEOUT)
        me.say({"type": "keepAlive"})
        assert me.hear()["type"] == "keepAliveAck", "the request is still on its way"
        clock.advance(LATENCY)
        assert me.hear()["type"] == {"rpcCall": "rpcResult", "channelCreate": "channelSend"}[request_["type"]]


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_latency_that_cannot_be_is_refused(seconds: float) -> None:
    with pytest.raises(LMStudioValueError, match="latency must be 0 or more"):
        Emulator([MODEL], latency=seconds)


# Frames


@proves("S-FRAMES-TWO-TABLES")
def test_calls_and_channels_may_have_equal_ids(me: Wire) -> None:
    frame = {"type": "channelCreate", "endpoint": "predict", "channelId": 1, "creationParameter": asking(MODEL, "Wait")}
    me.say(frame)
    me.say({"type": "rpcCall", "endpoint": "listLoaded", "callId": 1})
    frames = [me.hear() for _ in range(4)]
    assert {"rpcResult", "channelSend"} == {each["type"] for each in frames}


@proves("S-FRAMES-KEEP-ALIVE")
def test_keep_alive_is_answered_at_once(me: Wire) -> None:
    me.say({"type": "keepAlive"})
    assert me.hear() == {"type": "keepAliveAck"}


@proves("S-FRAMES-CONCURRENT")
def test_a_stalled_prediction_delays_nothing(me: Wire) -> None:
    channel = me.open("predict", asking(MODEL, "Wait"))
    for _ in range(3):
        assert me.hear()["channelId"] == channel
    assert len(me.result("listLoaded")) == 1


@proves("S-FRAMES-ORDER", "S-FRAMES-CLOSE")
def test_packets_of_a_channel_come_in_order_and_end_with_its_close(me: Wire) -> None:
    packets = me.stream("predict", asking(MODEL, "Hello you"))
    kinds = [packet["type"] for packet in packets]
    assert kinds == ["promptProcessingProgress"] * 2 + ["fragment"] * (len(kinds) - 3) + ["success"]
    text = "".join(packet["fragment"]["content"] for packet in packets[2:-1])
    assert "Hello you" in text


def test_frames_that_are_due_together_leave_in_one_write(server: Emulator) -> None:
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


@proves("S-FRAMES-GONE-CHANNEL")
def test_a_packet_for_an_ended_channel_gets_a_warning(me: Wire) -> None:
    channel = me.open("predict", asking(MODEL))
    list(me.packets(channel))
    me.send(channel, {"type": "cancel"})
    assert me.hear()["kind"] == "channelUnknown"


@proves("S-FRAMES-ACK")
def test_an_ack_id_is_accepted(me: Wire) -> None:
    channel = me.open("predict", asking(MODEL, "Wait"))
    me.say({"type": "channelSend", "channelId": channel, "message": {"type": "cancel"}, "ackId": 1})
    me.say({"type": "channelAck", "channelId": channel, "ackId": 1})
    assert [packet["type"] for packet in me.packets(channel)][-1] == "success"


# Frames that are wrong


@proves("S-BAD-NOT-JSON")
@pytest.mark.parametrize(
    "frame",
    [
        "{",
        "[]",
        "null",
        '"x"',
        {"type": "unheardOf"},
        {"type": "rpcCall", "endpoint": "listLoaded"},
        {"type": "rpcCall", "endpoint": "listLoaded", "callId": "1"},
        {"type": "rpcCall", "callId": 1},
        {"type": "channelSend", "message": {"type": "cancel"}},
        {"endpoint": "listLoaded", "callId": 1},
    ],
)
def test_a_frame_that_is_none_is_dropped(me: Wire, frame: object) -> None:
    me.say(frame)
    me.say({"type": "keepAlive"})
    assert me.hear() == {"type": "keepAliveAck"}


@proves("S-BAD-ENDPOINT")
@pytest.mark.parametrize(("kind", "number"), [("rpcCall", "callId"), ("channelCreate", "channelId")])
def test_an_unknown_endpoint_gets_one_warning_and_no_answer(me: Wire, kind: str, number: str) -> None:
    me.say({"type": kind, "endpoint": "noSuchEndpoint", number: 1})
    warning = me.hear()
    assert warning["warning"] == f"Received {kind} for unknown endpoint, endpoint = noSuchEndpoint"
    assert warning["kind"] == ("rpcEndpointUnknown" if kind == "rpcCall" else "channelEndpointUnknown")
    assert me.result("listLoaded")


@proves("S-BAD-PARAMETER", "S-BAD-LAYER", "S-BAD-PLAIN-CONTENT")
@pytest.mark.parametrize(
    "parameter",
    [
        {},
        {**asking(MODEL), "modelSpecifier": {"type": "other"}},
        {**asking(MODEL), "predictionConfigStack": {"layers": [{"layerName": "mine", "config": {"fields": []}}]}},
        {**asking(MODEL), "history": {"messages": [{"role": "user", "content": "Hello"}]}},
        {**asking(MODEL), "history": {"messages": [{"role": "developer", "content": []}]}},
    ],
)
def test_an_invalid_parameter_gets_a_warning_and_no_answer(me: Wire, parameter: object) -> None:
    me.open("predict", parameter)
    assert me.hear()["kind"] == "channelCreationParameterTypeError"
    me.say({"type": "rpcCall", "endpoint": "tokenize", "callId": 9, "parameter": {"specifier": named(MODEL)}})
    warning = me.hear()
    assert warning["kind"] == "rpcParameterTypeError"
    assert "inputString" in warning["warning"]


@proves("S-BAD-NULL-VOID")
def test_null_is_no_void_parameter(me: Wire) -> None:
    me.say({"type": "rpcCall", "endpoint": "listLoaded", "callId": 1, "parameter": None})
    assert me.hear()["kind"] == "rpcParameterTypeError"


@proves("S-BAD-DUPLICATE")
def test_a_channel_id_in_use_gets_a_warning(me: Wire) -> None:
    frame = {"type": "channelCreate", "endpoint": "predict", "channelId": 1, "creationParameter": asking(MODEL, "Wait")}
    me.say(frame)
    me.say(frame)
    kinds = [me.hear() for _ in range(4)]
    assert [each["kind"] for each in kinds if each["type"] == "communicationWarning"] == ["channelAlreadyOpen"]


@proves("S-BAD-PACKET")
def test_an_invalid_packet_gets_a_warning_and_the_channel_goes_on(me: Wire) -> None:
    channel = me.open("predict", asking(MODEL, "Wait"))
    for _ in range(3):
        me.hear()
    me.send(channel, {"type": "stop"})
    assert me.hear()["kind"] == "channelMessageTypeError"
    me.send(channel, {"type": "cancel"})
    assert next(me.packets(channel))["type"] == "success"


@proves("S-BAD-FIVE")
def test_there_are_at_most_five_warnings(me: Wire) -> None:
    for number in range(9):
        me.say({"type": "rpcCall", "endpoint": "noSuchEndpoint", "callId": number})
    me.say({"type": "keepAlive"})
    kinds = [me.hear()["type"] for _ in range(6)]
    assert kinds == ["communicationWarning"] * 5 + ["keepAliveAck"]


@proves("S-BAD-UNKNOWN-FIELDS")
def test_unknown_fields_and_settings_are_accepted(me: Wire) -> None:
    parameter = asking(MODEL, fields={"unheard.of": 1}) | {"more": True}
    assert me.stream("predict", parameter)[-1]["type"] == "success"


def test_a_handler_that_fails_costs_only_its_request(
    server: Emulator, me: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    from lmstudio_integrations.emulator.handlers import HANDLERS

    monkeypatch.setitem(HANDLERS["llm"], "listLoaded", fail)
    monkeypatch.setitem(HANDLERS["llm"], "predict", fail)
    assert "a bug" in me.refusal("listLoaded")["cause"]
    assert me.stream("predict", asking(MODEL))[-1]["type"] == "error"
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 2
    assert me.result("getLoadConfig", {"specifier": named(MODEL)})


def test_a_result_that_is_no_json_is_an_error(me: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(*_: object) -> object:
        return object()

    from lmstudio_integrations.emulator.handlers import HANDLERS

    monkeypatch.setitem(HANDLERS["llm"], "listLoaded", answer)
    assert "Internal error" in me.refusal("listLoaded")["title"]


def test_a_warning_of_the_client_is_logged(me: Wire, caplog: pytest.LogCaptureFixture) -> None:
    me.say({"type": "communicationWarning", "warning": "I do not understand", "kind": "unknown"})
    me.say({"type": "keepAlive"})
    me.hear()
    assert "I do not understand" in caplog.text


# Faults of the line, readers that do not read, and the way out


def faulty(*steps: object) -> Emulator:
    """Return a server whose model does these steps."""
    return Emulator([ModelEntry(key=MODEL, rules=({"then": list(steps)},), preload=True)])


def test_a_dropped_line_ends_without_a_close_frame() -> None:
    with faulty({"text": "One two"}, {"fault": "drop"}) as server, wire(server) as me:
        me.open("predict", asking(MODEL))
        with pytest.raises(ConnectionClosed) as caught:
            me.hear_out()
        assert caught.value.rcvd is None


def test_a_half_closed_line_still_takes_what_is_said() -> None:
    with faulty({"text": "One"}, {"fault": "half_close"}, {"text": "two"}) as server, wire(server) as me:
        me.open("predict", asking(MODEL))
        with pytest.raises(ConnectionClosed):
            me.hear_out()
        server.wait_for(lambda: server.predictions[-1].state == "ended")


def test_a_corrupt_frame_is_no_json_and_the_prediction_goes_on() -> None:
    with faulty({"text": "One"}, {"fault": "corrupt"}, {"text": " two"}) as server, wire(server) as me:
        me.open("predict", asking(MODEL))
        frames = [me.socket.recv(TIMEOUT) for _ in range(6)]
        with pytest.raises(json.JSONDecodeError):
            json.loads(frames[3])
        assert "success" in str(frames[5])


def test_an_unknown_packet_comes_on_the_channel() -> None:
    with faulty({"fault": "unknown_packet"}, {"text": "One"}) as server, wire(server) as me:
        kinds = [packet["type"] for packet in me.stream("predict", asking(MODEL))]
        assert kinds == ["promptProcessingProgress"] * 2 + ["unheardOf", "fragment", "success"]


LONG = ModelEntry(key=MODEL, rules=({"then": [{"text": " ".join(["word"] * 40_000)}]},), preload=True)


def test_a_reader_that_does_not_read_is_cut_off_and_stalls_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with Emulator([LONG], limits=Limits(backlog_bytes=100_000)) as server, lazy(server) as other, wire(server) as me:
        other.open("predict", asking(MODEL))
        assert me.result("listLoaded")
        server.wait_for(lambda: len(server.connections) == 1, timeout=20)
        assert me.result("listLoaded")
        server.wait_for(lambda: all(each.state == "ended" for each in server.predictions))
    assert "does not read" in caplog.text


@proves("S-PREDICT-DISCONNECT")
def test_the_work_of_a_socket_stops_with_it(server: Emulator) -> None:
    with wire(server) as me:
        me.open("predict", asking(MODEL, "Wait"))
        server.wait_for(lambda: len(server.predictions) == 1 and server.predictions[0].fragments == 1)
    server.wait_for(lambda: server.predictions[0].state == "ended")
    assert server.predictions[0].stop_reason == "disconnected"


def test_the_server_stops_with_open_streams() -> None:
    with Emulator([ModelEntry(key=MODEL, rules=(WAITING,), preload=True)]) as server, wire(server) as me:
        me.open("predict", asking(MODEL, "Wait"))
        me.hear()
        server.stop()
        with pytest.raises(ConnectionClosed) as caught:
            me.hear_out()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001


def test_the_server_stops_though_a_client_does_not_read() -> None:
    with Emulator([LONG]) as server, lazy(server) as other:
        other.open("predict", asking(MODEL))
        server.wait_for(lambda: bool(server.predictions) and server.predictions[0].state == "ended", timeout=20)
        server.stop()


# Starting and waiting


def test_a_taken_port_is_a_clear_error(server: Emulator) -> None:
    with pytest.raises(LMStudioOSError, match="choose another port"):
        Emulator([MODEL], port=server.port).start()


def test_the_first_free_port_is_taken(server: Emulator) -> None:
    with Emulator([MODEL], port=[server.port, 0]) as other:
        assert other.port not in {0, server.port}


def test_an_emulator_starts_again_after_a_stop() -> None:
    emulator = Emulator([MODEL])
    for _ in range(2):
        with emulator as server, wire(server) as me:
            assert me.result("listLoaded") == []


def loading(on_load: Callable[[], object]) -> Emulator:
    """Return a server whose start does something while a model loads, and then waits for ever."""

    async def wait(_seconds: float) -> None:
        on_load()
        await asyncio.get_running_loop().create_future()

    slow = ModelEntry(key=MODEL, preload=True, rules=({"when": {"load": True}, "then": [{"wait": 1.0}]},))
    return Emulator([slow], engines={"scripted": ScriptedEngine(wait)})


def emulators() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "lmstudio-emulator"]


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to a thread")
def test_ctrl_c_during_the_start_ends_the_server() -> None:
    main = threading.main_thread().ident
    assert main is not None
    with pytest.raises(KeyboardInterrupt):
        loading(lambda: signal.pthread_kill(main, signal.SIGINT)).start()
    assert emulators() == []


async def test_a_start_that_is_cancelled_ends_the_server() -> None:
    async def enter() -> None:
        async with emulator:
            raise AssertionError("it started")

    loop = asyncio.get_running_loop()
    emulator = loading(lambda: loop.call_soon_threadsafe(entering.cancel))
    entering = loop.create_task(enter())
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert emulators() == []


def test_a_server_that_is_stopped_while_it_starts_says_so() -> None:
    emulator = loading(lambda: threading.Thread(target=emulator.stop).start())
    with pytest.raises(LMStudioRuntimeError, match="stopped while it started"):
        emulator.start()
    assert emulators() == []


def test_an_emulator_starts_once(server: Emulator) -> None:
    with pytest.raises(LMStudioRuntimeError, match="already running"):
        server.start()


def test_an_emulator_that_does_not_run_says_so() -> None:
    emulator = Emulator([MODEL])
    emulator.stop()
    with pytest.raises(LMStudioRuntimeError, match="is not running"):
        emulator.loaded()


async def test_an_emulator_is_an_async_context_manager() -> None:
    async with Emulator([MODEL]) as server:
        assert server.address == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1")])
def test_an_address_can_stand_in_a_url(host: str, address: str) -> None:
    assert netloc(host, 1) == address


def test_waiting_in_vain_ends(server: Emulator) -> None:
    with pytest.raises(LMStudioTimeoutError, match="did not hold"):
        server.wait_for(lambda: False, timeout=0.05)


# In the foreground

FOREGROUND = """
from lmstudio_integrations.emulator import Emulator, ModelEntry

rule = {"when": {"last": "^Wait"}, "then": [{"text": "One"}, {"fault": "stall"}]}
emulator = Emulator([ModelEntry(key="chat", rules=(rule,), preload=True)])
emulator.serve_forever(lambda: print(emulator.port, flush=True))
print("stopped", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT] if os.name == "posix" else [])
def test_a_server_in_the_foreground_stops_with_a_signal(number: signal.Signals) -> None:
    command = [sys.executable, "-c", FOREGROUND]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with connect(f"ws://127.0.0.1:{port}/llm", compression=None) as opened:
            me = Wire(opened)
            me.say(credentials())
            assert me.hear() == {"success": True}
            me.open("predict", asking(MODEL, "Wait"))
            me.hear()
            process.send_signal(number)
            with pytest.raises(ConnectionClosed) as caught:
                me.hear_out()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1001
        assert process.stdout.read() == "stopped\n"
        assert process.wait(TIMEOUT) == 0


LOADING = """
import asyncio
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine

async def wait(seconds):
    print("loading", flush=True)
    await asyncio.Event().wait()

rule = {"when": {"load": True}, "then": [{"wait": 1.0}]}
engines = {"scripted": ScriptedEngine(wait)}
Emulator([ModelEntry(key="chat", rules=(rule,), preload=True)], engines=engines).serve_forever()
print("stopped", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT] if os.name == "posix" else [])
def test_a_server_in_the_foreground_stops_with_a_signal_while_it_loads(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", LOADING], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(number)
        assert process.stdout.read() == "stopped\n"
        assert process.wait(TIMEOUT) == 0


def test_a_server_in_the_foreground_that_cannot_start_says_why(server: Emulator) -> None:
    with pytest.raises(LMStudioOSError, match="choose another port"):
        Emulator([MODEL], port=server.port).serve_forever()


def test_a_condition_may_itself_use_the_server(server: Emulator) -> None:
    server.wait_for(lambda: server.load(MODEL).identifier == f"{MODEL}:3")
