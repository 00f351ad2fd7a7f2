"""Where frames are in received bytes: the same as the `websockets` library finds, however the bytes arrive."""

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from lmstudio_integrations.client.transport.connect.framing import frames
from lmstudio_integrations.client.transport.connect.websocket import Socket
from lmstudio_integrations.protocol.session import ClientSession

pytestmark = pytest.mark.usefixtures("as_the_io_thread")

PAYLOADS = st.binary(max_size=200) | st.sampled_from([b"x" * size for size in (125, 126, 127, 65_535, 65_536)])
MESSAGES = st.builds(Frame, st.sampled_from([Opcode.TEXT, Opcode.BINARY]), PAYLOADS)
CONTROL = st.builds(Frame, st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125))


@settings(deadline=None)
@given(st.lists(MESSAGES | CONTROL, max_size=5), st.booleans(), st.integers(0, 200))
def test_the_complete_frames_are_found(sent: list[Frame], mask: bool, cut: int) -> None:
    written = [frame.serialize(mask=mask) for frame in sent]
    data = b"".join(written)
    received = data[: max(0, len(data) - cut)]
    found, is_too_large = frames(received)
    assert not is_too_large
    ends = [sum(map(len, written[: number + 1])) for number in range(len(written))]
    assert [end for _, _, end in found] == [end for end in ends if end <= len(received)]
    for (start, payload, end), frame, text in zip(found, sent, written, strict=False):
        assert data[start:end] == text
        assert end - payload == len(frame.data)
        assert mask or data[payload:end] == frame.data


@settings(deadline=None)
@given(st.lists(MESSAGES | CONTROL, max_size=5), st.integers(0, 200))
def test_the_frames_before_one_that_is_too_large_are_found(sent: list[Frame], max_size: int) -> None:
    first = next((number for number, frame in enumerate(sent) if len(frame.data) > max_size), None)
    found, is_too_large = frames(b"".join(frame.serialize(mask=False) for frame in sent), max_size)
    assert is_too_large == (first is not None)
    assert len(found) == (len(sent) if first is None else first)


class Transport(asyncio.Transport):
    """Collects what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False


class Session:
    """Collects what is received."""

    ready = True

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def receive(self, data: bytes, _now: float) -> None:
        self.received.append(data)


def _connecting() -> tuple[Socket, Transport, ServerProtocol, bytes]:
    """Return a socket that waits for the response to its handshake, its transport, the server, and the response."""
    socket, transport = Socket(ClientProtocol(parse_uri("ws://localhost"))), Transport()
    socket.connection_made(transport)
    server = ServerProtocol()
    socket.protocol.send_request(socket.protocol.connect())
    server.receive_data(b"".join(socket.protocol.data_to_send()))
    [request] = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    return socket, transport, server, b"".join(server.data_to_send())


@settings(deadline=None)
@given(st.lists(MESSAGES | CONTROL, max_size=8), st.lists(st.integers(1, 300)))
async def test_a_session_receives_all_messages_whatever_the_reads(sent: list[Frame], sizes: list[int]) -> None:
    socket, transport, server, response = _connecting()
    session = Session()
    socket.data_received(response)
    socket.session = cast("ClientSession", session)
    data = b"".join(frame.serialize(mask=False) for frame in sent)
    while data:
        size = sizes.pop() if sizes else 10_000
        socket.data_received(data[:size])
        data = data[size:]
    assert session.received == [frame.data for frame in sent if frame.opcode in {Opcode.TEXT, Opcode.BINARY}]
    server.receive_data(transport.written)
    pongs = [event.data for event in server.events_received() if isinstance(event, Frame)]
    assert pongs == [frame.data for frame in sent if frame.opcode is Opcode.PING]
    socket.recv_messages.close()


@pytest.mark.parametrize("cut", [1, 3, 4, 6, 8, 9])
async def test_the_library_reads_what_comes_with_the_response_to_the_handshake(cut: int) -> None:
    """A server must not speak first, but if it does, all of its frames are read."""
    socket, _, _, response = _connecting()
    first, second = (Frame(Opcode.TEXT, text).serialize(mask=False) for text in (b"one", b"two"))
    data = response + first + second
    middle = len(response) + len(first) - cut
    socket.data_received(data[:middle])
    socket.session = cast("ClientSession", Session())
    socket.data_received(data[middle:])
    assert [await socket.recv(), await socket.recv()] == ["one", "two"]
