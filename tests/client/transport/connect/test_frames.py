"""A socket hands over the messages that the library finds, although it takes most out of their frames itself."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.uri import parse_uri

from lmstudio_integrations.client.transport.connect.sockets import Socket, whole_message

MOST_BYTES = 1 << 20
"""The limit of the user."""


def framed(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


@pytest.mark.parametrize("size", [3, 125, 126, 300, 65_535])
def test_a_text_that_comes_alone_is_taken_out_of_its_frame(size: int) -> None:
    text = b"x" * size
    assert whole_message(framed(Opcode.TEXT, text)) == text


TEXT = framed(Opcode.TEXT, b"some text")
NOT_ALONE = {
    "nothing": b"",
    "an empty text": framed(Opcode.TEXT, b""),
    "the first part of a message": framed(Opcode.TEXT, b"some", fin=False),
    "a later part of a message": framed(Opcode.CONT, b"text"),
    "a masked text": Frame(Opcode.TEXT, b"some text").serialize(mask=True),
    "a compressed text": b"\xc1" + TEXT[1:],
    "bytes": framed(Opcode.BINARY, b"some text"),
    "a ping": framed(Opcode.PING, b"some text"),
    "a pong": framed(Opcode.PONG, b"some text"),
    "the end": framed(Opcode.CLOSE, Close(CloseCode.NORMAL_CLOSURE, "").serialize()),
    "an invalid opcode": b"\x83" + TEXT[1:],
    "a text of 64 KB": framed(Opcode.TEXT, b"x" * 65_536),
    "the beginning of a text": TEXT[:-1],
    "a text and a byte": TEXT + b"\x81",
    "two texts": TEXT + TEXT,
    "a text before a ping": TEXT + framed(Opcode.PING, b""),
    "a size of which a half is there": framed(Opcode.TEXT, b"x" * 300)[:3],
}


@pytest.mark.parametrize("data", NOT_ALONE.values(), ids=NOT_ALONE)
def test_what_is_no_whole_text_alone_is_left_to_the_library(data: bytes) -> None:
    assert whole_message(data) is None


class _Transport(asyncio.Transport):
    """Sends nothing."""

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def abort(self) -> None:
        pass


_HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "


def connected(kind: Callable[[ClientProtocol], Any], early: bytes, head_cut: int) -> Any:
    """Return a connection after its handshake, whose end may be cut off; with it, something else may arrive."""
    protocol = ClientProtocol(parse_uri("ws://localhost/"), max_size=MOST_BYTES)
    connection = kind(protocol)
    connection.connection_made(_Transport())
    request = protocol.connect()
    protocol.send_request(request)
    accept = ClientProtocol.process_response.__globals__["accept_key"](request.headers["Sec-WebSocket-Key"])
    head = _HEAD + accept.encode() + b"\r\n\r\n"
    for piece in (head[: len(head) - head_cut], head[len(head) - head_cut :] + early):
        if piece:
            connection.data_received(piece)
    return connection


_FRAMES = st.one_of(
    st.builds(Frame, st.just(Opcode.TEXT), st.binary(max_size=300)),
    st.builds(Frame, st.just(Opcode.TEXT), st.sampled_from([125, 126, 127, 65535, 65536]).map(bytes)),
    st.builds(Frame, st.just(Opcode.BINARY), st.binary(max_size=5)),
    st.builds(Frame, st.just(Opcode.PING), st.binary(max_size=5)),
    st.builds(Frame, st.just(Opcode.TEXT), st.binary(max_size=5), st.just(False)),
)


async def read_all(connection: Any) -> list[bytes]:
    read = list[bytes]()
    while True:
        reading = asyncio.ensure_future(connection.recv(decode=False))
        await asyncio.sleep(0)
        if not reading.done():
            reading.cancel()
            await asyncio.wait([reading])
            return read
        try:
            read.append(reading.result())
        except ConnectionClosed:
            return read


@given(st.lists(_FRAMES, max_size=6), st.lists(st.integers(0, 400), max_size=8), st.booleans(), st.integers(0, 9))
def test_messages_are_the_same_however_they_are_cut(
    frames: list[Frame], cuts: list[int], is_early: bool, head_cut: int
) -> None:
    whole = list[Frame]()
    for frame in frames:
        whole.append(frame)
        if not frame.fin:
            whole += [Frame(Opcode.PING, b"between"), Frame(Opcode.CONT, b"rest")]
    # Frames that come alone, as tokens do, in pieces, and several at once
    pieces = [frame.serialize(mask=False) for frame in whole]
    for cut in cuts:
        at = cut % (len(pieces) or 1)
        if cut % 2:
            pieces[at : at + 2] = filter(None, [b"".join(pieces[at : at + 2])])
        else:
            pieces[at : at + 1] = [each for piece in pieces[at : at + 1] for each in (piece[:cut], piece[cut:]) if each]
    early = pieces.pop(0) if pieces and is_early else b""

    asyncio.run(compare(pieces, early, head_cut))


async def compare(pieces: list[bytes], early: bytes = b"", head_cut: int = 0) -> None:
    """Compare the messages with those of the library, however they arrive, and how the connection ends."""
    delivered = list[bytes]()
    ours = connected(Socket, early, head_cut)
    before = await read_all(ours)
    ours.read_small(MOST_BYTES)
    ours.on_messages = delivered.extend
    theirs = connected(ClientConnection, early, head_cut)
    for piece in pieces:
        ours.data_received(piece)
        theirs.data_received(piece)
    assert before + delivered + await read_all(ours) == await read_all(theirs)
    assert str(ours.protocol.parser_exc) == str(theirs.protocol.parser_exc)
    assert ours.protocol.close_rcvd == theirs.protocol.close_rcvd


def _message_in_parts(*between: bytes) -> list[bytes]:
    parts = (
        framed(Opcode.TEXT, b"one, ", fin=False),
        framed(Opcode.CONT, b"two, ", fin=False),
        framed(Opcode.CONT, b"three"),
    )
    return [parts[0], *between, parts[1], *between, parts[2]]


PING = framed(Opcode.PING, b"are you there")
STREAMS = {
    "a message in parts": _message_in_parts(),
    "a message in parts with pings between": _message_in_parts(PING),
    "a message in parts between others": [TEXT, *_message_in_parts(), TEXT, TEXT],
    "a masked text": [TEXT, NOT_ALONE["a masked text"], TEXT],
    "a compressed text": [TEXT, NOT_ALONE["a compressed text"], TEXT],
    "an invalid opcode": [TEXT, NOT_ALONE["an invalid opcode"], TEXT],
    "a message in parts that another one interrupts": [framed(Opcode.TEXT, b"one, ", fin=False), TEXT],
    "a text that is too large": [TEXT, framed(Opcode.TEXT, b"x" * (MOST_BYTES + 1)), TEXT],
    "parts that are too large": [TEXT, framed(Opcode.TEXT, b"x" * MOST_BYTES, fin=False), framed(Opcode.CONT, b"xx")],
    "a text of the largest size": [TEXT, framed(Opcode.TEXT, b"x" * MOST_BYTES), TEXT],
    "pings": [TEXT, PING, TEXT + PING, PING + TEXT],
    "the end": [TEXT, NOT_ALONE["the end"], TEXT],
    "a text that ends like a whole one": [TEXT, framed(Opcode.TEXT, b"it ends with " + TEXT)[: -len(TEXT)], TEXT, TEXT],
}


@pytest.mark.parametrize("size", [1, 2, 3, 7, None], ids=lambda size: f"{size} bytes at a time" if size else "whole")
@pytest.mark.parametrize("pieces", STREAMS.values(), ids=STREAMS)
def test_whatever_a_server_sends_is_read_as_the_library_reads_it(pieces: list[bytes], size: int | None) -> None:
    sent = b"".join(pieces)
    if size is not None and len(sent) < MOST_BYTES:
        pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    asyncio.run(compare(pieces))
