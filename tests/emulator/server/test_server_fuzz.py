"""Whatever is said to the emulator, it goes on."""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.protocol.endpoints import ENDPOINTS
from tests.emulator.bare_client import STACK, named, prediction_request, wire
from tests.emulator.server.hostile import frame, is_closed, raw, raw_websocket

pytestmark = pytest.mark.slow

NAMES = sorted({name for endpoints in ENDPOINTS.values() for name in endpoints})
KEEP_ALIVE = {"type": "keepAlive"}
TYPES = ["rpcCall", "channelCreate", "channelSend", "channelAck", "signalSubscribe", "communicationWarning"]

numbers = st.integers() | st.integers(2**53, 2**70) | st.just(10**400)
scalars = st.none() | st.booleans() | numbers | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
sensible = st.sampled_from(
    [
        prediction_request("chat"),
        {"specifier": named("chat"), "inputString": "x", "throwIfNotFound": False},
        {"identifier": "chat", "modelKey": "chat", "loadConfigStack": STACK},
        {"name": "a", "contentBase64": "AA==", "fileIdentifier": "x", "fileIdentifiers": [], "query": ""},
        {"modelSpecifier": named("chat"), "rawPrompt": "", "predictionConfigStack": STACK, "history": {"messages": []}},
    ]
)
frames = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES) | values.filter(lambda value: value != "keepAlive")},
    optional={
        "endpoint": st.sampled_from(NAMES) | values,
        "callId": st.integers(-1, 3) | values,
        "channelId": st.integers(-1, 3) | values,
        "parameter": sensible | values,
        "creationParameter": sensible | values,
        "message": st.sampled_from([{"type": "cancel"}, {"type": "stop"}]) | values,
    },
)

nested = st.integers(1, 3000).map(lambda depth: '{"type":' + '[{"a":' * depth + "1" + "}]" * depth + "}")
payloads = st.binary(max_size=300) | nested.map(str.encode) | frames.map(lambda each: json.dumps(each).encode())
writes = st.binary(max_size=300) | st.builds(
    lambda payload, opcode, final: frame(payload, opcode=opcode, final=final),
    payloads,
    st.sampled_from([0, 1, 2, 8, 9, 10, 15]),
    st.booleans(),
)
"""What may come down a TCP connection: garbage, and WebSocket frames of any kind with any content."""


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    """A server with one model of each kind, shared by all examples."""
    models = [ModelEntry(key="chat"), ModelEntry(key="vectors", kind="embedding")]
    with Emulator(models, load=["chat", "vectors"]) as emulator:
        yield emulator


@pytest.mark.sampled(2)
@pytest.mark.parametrize("namespace", list(ENDPOINTS))
def test_the_server_survives_all_frames(server: Emulator, namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(frames, max_size=8))
    def converse(output: list[dict[str, Any]]) -> None:
        with wire(server, namespace) as me:
            for frame in output:
                me.send_frame(frame)
            me.send_frame(KEEP_ALIVE)
            while me.receive() != {"type": "keepAliveAck"}:
                pass

    converse()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_the_server_survives_all_bytes(server: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(["http", "websocket"]), st.lists(writes, max_size=8))
    def send(level: str, output: list[bytes]) -> None:
        with raw(server) if level == "http" else raw_websocket(server) as line, contextlib.suppress(ConnectionError):
            line.sendall(b"".join(output))
            line.shutdown(socket.SHUT_WR)
            assert is_closed(line)
        assert len(other.result("listLoaded")) == 1

    with wire(server, client="guest:other") as other:
        send()
    errors = {record.getMessage() for record in caplog.records if record.levelname == "ERROR"}
    assert errors <= {"opening handshake failed"}, "which is how older versions of websockets log garbage"
