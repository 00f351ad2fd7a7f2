"""What a replayed server sends, frame by frame: also where the client does otherwise than in the recording."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from lmstudio_integrations.cassettes import Replay
from lmstudio_integrations.cassettes import cassette as cassette_module
from lmstudio_integrations.cassettes import replay as replay_module
from lmstudio_integrations.cassettes.cassette import ABSENT, Event, Interaction, Kind, save
from lmstudio_integrations.errors import LMStudioValueError
from tests.emulator.bare_client import Wire, wire

LONG = 600.0
"""Seconds that no test waits for."""

CANCEL = {"type": "cancel"}
END = {"type": "success", "stats": {"stopReason": "eosFound"}}
STOPPED = {"type": "success", "stats": {"stopReason": "userStopped"}}

Start = Callable[..., Any]


def fragment(text: str) -> dict[str, Any]:
    return {"type": "fragment", "fragment": {"content": text}}


def received(*packets: Any) -> list[Event]:
    return [Event("received", packet) for packet in packets]


def ask(socket: Wire, endpoint: str) -> None:
    if endpoint == "predict":
        socket.open(endpoint)
    else:
        socket.send_frame({"type": "rpcCall", "endpoint": endpoint, "callId": 1})


@pytest.fixture
def replay(tmp_path: Path) -> Start:
    """Start one request on a socket of its own."""

    @contextmanager
    def start(endpoint: str, *events: Event, parameter: Any = ABSENT) -> Iterator[Wire]:
        kind: Kind = "channel" if endpoint == "predict" else "call"
        path = tmp_path / "session.lms.jsonl"
        save(path, [Interaction(1, kind, "llm", endpoint, parameter, list(events))])
        with Replay(path) as server, wire(server) as opened:
            yield opened

    return start


def test_a_file_that_is_nested_too_deeply_is_named(tmp_path: Path) -> None:
    path = tmp_path / "session.lms.jsonl"
    call = {"event": "call", "namespace": "llm", "endpoint": "x", "body": []}
    deep = json.dumps(call).replace("[]", "[" * 900 + "]" * 900)
    path.write_text(f'{{"cassette":2}}\n{deep}\n', encoding="utf-8")
    with pytest.raises(LMStudioValueError, match=r"session\.lms\.jsonl' cannot be read: .* nested too deeply"):
        Replay(path)


LINES = [
    '{"cassette":2}',
    '{"event":"call","namespace":"llm","endpoint":"listLoaded"}',
    '{"event":"result","body":[]}',
    '{"event":"channel","namespace":"llm","endpoint":"predict","body":{}}',
    '{"event":"received","body":{"type":"fragment","fragment":{"content":"a"}}}',
    '{"event":"closed"}',
]


@pytest.mark.parametrize(
    ("lines", "cut"),
    [(LINES[:2], "1 (llm.listLoaded)"), (LINES[:4], "2 (llm.predict)"), (LINES[:5], "2 (llm.predict)")],
)
def test_a_file_that_is_cut_between_its_lines_is_named(tmp_path: Path, lines: list[str], cut: str) -> None:
    path = tmp_path / "session.lms.jsonl"
    path.write_text("\n".join(LINES), encoding="utf-8")
    Replay(path)
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(LMStudioValueError, match="cut off") as caught:
        Replay(path)
    assert str(caught.value) == f"the cassette {str(path)!r} is cut off: request {cut} has no end; record it again"


def test_nothing_follows_a_request_that_was_under_way_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "session.lms.jsonl"
    path.write_text("\n".join([*LINES[:5], '{"event":"open"}', LINES[5]]), encoding="utf-8")
    with pytest.raises(LMStudioValueError, match=r"line 7 .*: no request before it is open"):
        Replay(path)


def test_a_request_that_is_too_large_to_be_compared_is_neither_recorded_nor_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "session.lms.jsonl"
    requests = [Interaction(1, "call", "llm", "tokenize", "a" * size, [Event("result")]) for size in (9, 2_000)]
    save(path, requests)
    monkeypatch.setattr(cassette_module, "MAX_REQUEST", 1_000)
    with pytest.raises(LMStudioValueError, match=r"line 4 .*: a request has more than 1,000 bytes"):
        Replay(path)
    save(path, requests)
    assert "a request of llm.tokenize is not recorded: it has more than 1,000 bytes" in caplog.text
    Replay(path)
    assert len(cassette_module.read(path)) == 1


def test_a_channel_waits_for_the_cancel_of_the_recording(replay: Start) -> None:
    events = [*received(fragment("a")), Event("sent", CANCEL), *received(STOPPED), Event("closed")]
    with replay("predict", *events) as socket:
        channel = socket.open("predict")
        packets = socket.packets(channel)
        assert next(packets) == fragment("a")
        socket.send(channel, CANCEL)
        assert list(packets) == [STOPPED]


def test_a_cancel_that_was_not_recorded_ends_the_response(replay: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    is_cancelled, sleep, turns = threading.Event(), asyncio.sleep, count()

    async def turn(_seconds: float) -> None:
        if next(turns):  # after the first packet
            while not is_cancelled.is_set():
                await sleep(0)

    monkeypatch.setattr(replay_module, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": turn}))
    with replay("predict", *received(fragment("a"), fragment("b"), END), Event("closed")) as socket:
        channel = socket.open("predict")
        packets = socket.packets(channel)
        assert next(packets) == fragment("a")
        socket.send(channel, CANCEL)
        socket.send_frame({"type": "keepAlive"})
        assert socket.receive() == {"type": "keepAliveAck"}
        is_cancelled.set()
        assert list(packets) == [STOPPED]


def test_a_channel_that_was_open_at_the_end_of_the_recording_stays_open(replay: Start) -> None:
    with replay("predict", *received(fragment("a"))) as socket:
        channel = socket.open("predict")
        packets = socket.packets(channel)
        assert next(packets) == fragment("a")
        socket.send(channel, CANCEL)
        assert list(packets) == []


@pytest.mark.parametrize("sends", [True, False], ids=["another packet", "nothing"])
def test_a_packet_that_does_not_come_is_an_error(replay: Start, monkeypatch: pytest.MonkeyPatch, sends: bool) -> None:
    monkeypatch.setattr(replay_module, "TIMEOUT", LONG if sends else 0.01)
    with replay("predict", Event("sent", {"type": "callTool"}), *received(END)) as socket:
        channel = socket.open("predict")
        if sends:
            socket.send(channel, CANCEL)
        (error,) = socket.packets(channel)
        now = "'cancel'" if sends else "nothing"
        assert error["error"]["title"] == f"In the recording, the client sent 'callTool' here; now it sent {now}"


WARNING = {"warning": "Received rpcCall for unknown endpoint", "kind": "rpcEndpointUnknown"}


@pytest.mark.parametrize("endpoint", ["predict", "tokenize"])
def test_an_error_a_warning_or_a_loss_comes_again(replay: Start, endpoint: str) -> None:
    error = {"title": "It went wrong", "stack": "at x", "errorData": {"a": [1]}}
    with replay(endpoint, Event("error", error)) as socket:
        ask(socket, endpoint)
        assert socket.receive()["error"] == error
    with replay(endpoint, Event("warning", WARNING)) as socket:
        ask(socket, endpoint)
        assert socket.receive() == {"type": "communicationWarning", **WARNING}
        assert socket.call("listLoaded")["type"] == "rpcError"  # which is the next frame
    with replay(endpoint, Event("lost")) as socket:
        ask(socket, endpoint)
        with pytest.raises(ConnectionClosed):
            socket.receive_until_closed()


def test_a_void_result_is_void_again(replay: Start) -> None:
    with replay("unloadModel", Event("result"), parameter={"identifier": "m"}) as socket:
        assert socket.call("unloadModel", {"identifier": "m"}) == {"type": "rpcResult"}
