"""Clients that send too much, read nothing, or are gone: it ends their own connection, and nobody else notices."""

import base64
import os
import resource
import signal
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from lmstudio_integrations.emulator import Emulator, Limits, ModelEntry
from lmstudio_integrations.emulator.server import server as listening
from lmstudio_integrations.emulator.server.context import MIB
from lmstudio_integrations.errors import LMStudioValueError
from tests.emulator.bare_client import TIMEOUT, Wire, prediction_request, wire
from tests.emulator.server.hostile import PING, connected, frame, lazy, measured, memory_at_most, process, raw_websocket
from tests.emulator.server.test_server import get
from tests.emulator.stalling_model import LONG, MODEL


def limited(**limits: Any) -> Emulator:
    """Return a server with these limits."""
    return Emulator([ModelEntry(key=MODEL, preload=True)], limits=Limits(**limits))


def still_serves(me: Wire) -> bool:
    """Whether a client gets a response."""
    return bool(me.result("listLoaded"))


@pytest.mark.parametrize("limits", [{"records": 0}, {"message_bytes": None}, {"records": "5"}])
def test_a_limit_that_is_not_positive_is_rejected(limits: dict[str, Any]) -> None:
    with pytest.raises(LMStudioValueError, match=next(iter(limits))):
        Limits(**limits)


def test_a_message_that_is_too_large_closes_its_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    with limited(message_bytes=10_000) as server, wire(server, client="guest:other") as other:
        with wire(server) as me:
            me.send_frame("x" * 10_001)
            with pytest.raises(ConnectionClosed) as caught:
                me.receive()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
        server.wait_for(lambda: len(server.connections) == 1, TIMEOUT)
        assert still_serves(other)
    assert "closed the connection of" in caplog.text


@pytest.mark.slow
def test_a_client_that_does_not_read_is_disconnected_and_blocks_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with Emulator([LONG], limits=Limits(backlog_bytes=100_000)) as server, lazy(server) as other, wire(server) as me:
        other.open("predict", prediction_request(MODEL))
        assert still_serves(me)
        server.wait_for(lambda: len(server.connections) == 1, TIMEOUT)
        assert still_serves(me)
        server.wait_for(lambda: all(each.state == "ended" for each in server.predictions), TIMEOUT)
    assert "does not read" in caplog.text
    assert ": the client disconnected" in caplog.text


@pytest.mark.slow
def test_replies_to_pings_that_nobody_reads_do_not_pile_up(caplog: pytest.LogCaptureFixture) -> None:
    pings = frame(b"x" * 125, opcode=PING) * 300_000
    with limited(backlog_bytes=MIB) as server, wire(server, client="guest:other") as other:
        with raw_websocket(server) as line, pytest.raises(ConnectionError):
            line.sendall(pings)
        assert still_serves(other)
    assert "does not read" in caplog.text


@pytest.mark.leaf
def test_large_results_that_nobody_reads_do_not_pile_up() -> None:
    text = base64.b64encode(b"x" * (MIB // 2)).decode()
    with limited(backlog_bytes=MIB) as server, lazy(server, "files") as me, wire(server) as other:
        uploaded = me.result("uploadFileBase64", {"name": "a.txt", "contentBase64": text})
        with memory_at_most(20 * MIB):
            with suppress(ConnectionClosed):
                for _ in range(100):
                    me.open("parseDocument", {"fileIdentifier": uploaded["identifier"], "parseOpts": {}})
            server.wait_for(lambda: len(server.connections) == 1, TIMEOUT)
            assert still_serves(other)


LARGE = b"x" * (20 * MIB)
CALL = b'{"type":"rpcCall","endpoint":"uploadFileBase64","callId":1,"parameter":{"name":"a","contentBase64":"%s"}}'


@measured
@pytest.mark.parametrize(
    "sent",
    [frame(LARGE)[:-1], frame(LARGE, final=False), frame(CALL % LARGE)],
    ids=["half a frame", "half a message", "a call"],
)
def test_what_a_client_sent_is_gone_with_its_connection(sent: bytes) -> None:
    with process() as server:
        before = server.memory()
        for _ in range(10):
            with raw_websocket(server, "files") as line:
                line.sendall(sent)
                get(server, "/lms-status")
        assert server.has_at_most(before + 100 * MIB)


@measured
def test_more_connections_than_the_process_may_have_are_one_line_in_the_log() -> None:
    with process() as server:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (40, 40))
        with ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(connected(server))
            assert "Too many open files" in server.errors.readline()
        assert get(server, "/lms-status")[0] == 200
        os.kill(server.pid, signal.SIGKILL)
        assert not server.errors.read()


def test_a_client_that_does_not_reply_to_pings_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_PING_INTERVAL", 0.05)
    monkeypatch.setattr(listening, "_PING_TIMEOUT", 0.2)
    with limited() as server, raw_websocket(server):
        server.wait_for(lambda: not server.connections, TIMEOUT)
