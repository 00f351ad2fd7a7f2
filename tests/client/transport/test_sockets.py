"""Sockets: messages that arrive in pieces or are too large, and failures that still wake every caller."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode

import lmstudio_integrations as lms
from lmstudio_integrations.client.transport.connect.addresses import Target
from lmstudio_integrations.client.transport.socket_session import Guests, SocketSession
from lmstudio_integrations.protocol.endpoints import rpc
from lmstudio_integrations.protocol.exchange import Exchange, InstanceQueues, NullReceiver
from tests.client.both import make_client
from tests.client.fake import Socket, authenticate, fake_server, receive, send_result
from tests.client.prediction_frames import END, fragment, loaded_handle, packet
from tests.support.virtual_time import in_virtual_time

__all__ = ["make_client"]

LIMIT = 200_000


@in_virtual_time
async def test_fragmented_and_whole_messages_keep_their_order(make_client: Callable[..., Any]) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        for number in range(6):
            text = json.dumps(fragment(str(number)))
            await socket.send([text[:9], text[9:]] if number in {2, 4} else text)
        await socket.send(json.dumps(packet(END)).encode())  # in a binary frame

    async with fake_server(behave) as address, make_client(address) as client:
        assert (await loaded_handle(client).respond("Hi")).content == "012345"


# Too large ------------------------------------------------------------------------------------------------------------


def _announced(size: int) -> bytes:
    """Return the head of a text frame."""
    return b"\x81\x7f" + size.to_bytes(8, "big")


def _fragments(*sizes: int) -> bytes:
    """Return the frames of a text message that goes on after them."""
    frames = [
        Frame(Opcode.CONT if number else Opcode.TEXT, b"x" * size, fin=False) for number, size in enumerate(sizes)
    ]
    return b"".join(frame.serialize(mask=False) for frame in frames)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (_announced(1 << 40), 1 << 40),
        (Frame(Opcode.BINARY, b"x" * (LIMIT + 1)).serialize(mask=False), LIMIT + 1),
        (_fragments(150_000, 60_000), 210_000),
    ],
    ids=["announced", "sent", "in fragments"],
)
@in_virtual_time
async def test_a_message_that_is_too_large_fails_every_call_on_its_connection_once(
    data: bytes, size: int, make_client: Callable[..., Any]
) -> None:
    sockets = 0
    closed = asyncio.Event()

    async def behave(socket: Socket) -> None:
        nonlocal sockets
        sockets += 1
        await authenticate(socket)
        if sockets > 1:
            await send_result(socket, [])
            return
        await receive(socket)
        await receive(socket)
        socket.transport.write(data)
        await socket.wait_closed()
        closed.set()

    async with fake_server(behave) as address, make_client(address, max_message_bytes=LIMIT) as client:
        calls = [asyncio.ensure_future(client.llm.list_loaded()) for _ in range(2)]
        for call in calls:
            with pytest.raises(lms.LMStudioProtocolError) as caught:
                await call
            assert f"{size:,} bytes" in str(caught.value)
            assert f"max_message_bytes is {LIMIT:,}" in str(caught.value)
            assert address in str(caught.value)
        await closed.wait()
        assert await client.llm.list_loaded() == []
    assert sockets == 2


@in_virtual_time
async def test_a_server_that_announces_too_much_before_it_accepts_the_client_is_rejected(
    make_client: Callable[..., Any],
) -> None:
    async def behave(socket: Socket) -> None:
        await receive(socket)
        socket.transport.write(_announced(1 << 40))

    async with fake_server(behave) as address, make_client(address) as client:
        with pytest.raises(lms.LMStudioProtocolError, match="max_message_bytes is 268,435,456"):
            await client.llm.list_loaded()


@in_virtual_time
async def test_a_message_of_the_largest_size_arrives_and_each_limit_has_connections_of_its_own(
    make_client: Callable[..., Any],
) -> None:
    text = "x" * 100_000
    reply = f'{{"type":"rpcResult","callId":1,"result":{{"version":"{text}","build":1}}}}'

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        await socket.send(reply)

    async with (
        fake_server(behave) as address,
        make_client(address, max_message_bytes=len(reply)) as large_enough,
        make_client(address, max_message_bytes=len(reply) - 1) as too_small,
        make_client(address, max_message_bytes=None) as unlimited,
    ):
        assert (await large_enough.system.get_version()).version == text
        with pytest.raises(lms.LMStudioProtocolError):
            await too_small.system.get_version()
        assert (await unlimited.system.get_version()).version == text


# Failures -------------------------------------------------------------------------------------------------------------


class _Receiver(NullReceiver):
    """Records with which error its call ended."""

    def __init__(self) -> None:
        self.errors: list[BaseException | None] = []

    def finish(self, error: BaseException | None) -> None:
        self.errors.append(error)


def _connecting(receiver: _Receiver, on_ended: Callable[[SocketSession], None]) -> SocketSession:
    """Return a session that connects to a closed port, with one request."""
    made = SocketSession(Target.of("127.0.0.1:9", None), "llm", InstanceQueues(), Guests(), on_ended=on_ended)
    made.session.start(Exchange(rpc("llm", "listLoaded"), None, receiver, {}, 0.0))
    return made


async def test_callers_are_woken_although_the_connection_fails_to_drop_the_socket() -> None:
    def fail(_ended: SocketSession) -> None:
        raise LookupError("no such connection")

    receiver = _Receiver()
    ended = _connecting(receiver, fail)
    with pytest.raises(LookupError):
        await ended.task
    assert [type(error) for error in receiver.errors] == [lms.LMStudioUnreachableError]


async def test_a_socket_that_is_closed_before_it_connects_wakes_its_callers() -> None:
    receiver = _Receiver()
    ended = _connecting(receiver, lambda _ended: None)
    ended.close()
    assert ended.is_closing, "a call that is made before the task ends needs another socket"
    await asyncio.wait([ended.task])
    assert [str(error) for error in receiver.errors] == ["the connection was closed on this side"]


@in_virtual_time
async def test_a_request_that_cannot_be_written_fails_at_once(make_client: Callable[..., Any]) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await send_result(socket, [])

    def fail(_protocol: ClientProtocol, _data: bytes) -> None:
        raise ValueError("an extension failed")

    async with fake_server(behave) as address, make_client(address) as client:
        assert await client.llm.list_loaded() == []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ClientProtocol, "send_text", fail)
            with pytest.raises(lms.LMStudioConnectionLostError, match="an extension failed"):
                await client.llm.list_loaded()
        assert await client.llm.list_loaded() == []
