"""A limit on the size of one message, whatever the server announces or sends."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

import lmstudio_integrations as lms
from tests.client.fake import Socket, authenticate, fake_server, receive, send_result

LIMIT = 200_000


def _announced(size: int) -> bytes:
    """Return the head of a text frame."""
    return b"\x81\x7f" + size.to_bytes(8, "big")


def _fragments(*sizes: int) -> bytes:
    """Return the frames of a text message that goes on after them."""
    frames = [
        Frame(Opcode.CONT if number else Opcode.TEXT, b"x" * size, fin=False) for number, size in enumerate(sizes)
    ]
    return b"".join(frame.serialize(mask=False) for frame in frames)


TOO_LARGE = {
    "announced": (_announced(1 << 40), 1 << 40),
    "announced, and begun": (_announced(LIMIT + 1) + b"x" * 1000, LIMIT + 1),
    "sent": (Frame(Opcode.TEXT, b"x" * (LIMIT + 1)).serialize(mask=False), LIMIT + 1),
    "binary": (Frame(Opcode.BINARY, b"x" * (LIMIT + 1)).serialize(mask=False), LIMIT + 1),
    "in fragments": (_fragments(150_000, 60_000), 210_000),
    "in many fragments": (_fragments(*[1000] * 201), 201_000),
}


@pytest.mark.parametrize("sent", TOO_LARGE)
async def test_a_message_that_is_too_large_fails_every_call_on_its_connection_once(
    make_client: Callable[..., Any], sent: str
) -> None:
    data, size = TOO_LARGE[sent]
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
        await asyncio.wait_for(closed.wait(), 600)
        assert await client.llm.list_loaded() == []
    assert sockets == 2


async def test_a_server_that_announces_too_much_before_it_accepts_the_client_is_rejected(
    make_client: Callable[..., Any],
) -> None:
    async def behave(socket: Socket) -> None:
        await receive(socket)
        socket.transport.write(_announced(1 << 40))

    async with fake_server(behave) as address, make_client(address) as client:
        with pytest.raises(lms.LMStudioProtocolError, match="max_message_bytes is 268,435,456"):
            await client.llm.list_loaded()


async def test_a_message_of_the_largest_size_arrives(make_client: Callable[..., Any]) -> None:
    text = "x" * 100_000
    reply = f'{{"type":"rpcResult","callId":1,"result":{{"version":"{text}","build":1}}}}'

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        await socket.send(reply)

    async with fake_server(behave) as address:
        async with make_client(address, max_message_bytes=len(reply)) as client:
            assert (await client.system.get_version()).version == text
        async with make_client(address, max_message_bytes=None) as client:
            assert (await client.system.get_version()).version == text
        async with make_client(address, max_message_bytes=len(reply) - 1) as client:
            with pytest.raises(lms.LMStudioProtocolError):
                await client.system.get_version()


async def test_clients_with_different_limits_have_their_own_connections(make_client: Callable[..., Any]) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        while True:
            await send_result(socket, [])

    async with (
        fake_server(behave) as address,
        make_client(address) as unlimited,
        make_client(address, max_message_bytes=10) as limited,
    ):
        assert await unlimited.llm.list_loaded() == []
        with pytest.raises(lms.LMStudioProtocolError):
            await limited.llm.list_loaded()
        assert await unlimited.llm.list_loaded() == []
