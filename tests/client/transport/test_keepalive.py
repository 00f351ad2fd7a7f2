"""Keepalive: dead sockets are detected and replaced, and a frozen server ends only calls that time out."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

import lmstudio_integrations as lms
from lmstudio_integrations.client.transport import connections
from tests.client.fake import Socket, authenticate, fake_server, receive, send, send_result, wait_until
from tests.client.prediction_frames import END, fragment, loaded_handle, packet
from tests.client.transport.test_connections import connections_to

LONG = {"queue_timeout": 50.0, "first_token_timeout": 50.0, "idle_timeout": 50.0}


class Server:
    """A fake server whose first socket may stop reading, so that it responds to nothing, not even to pings.

    Attributes:
        sockets: Every socket that was accepted.
        requested: Set when a prediction was requested on the first.
        awake: New sockets are accepted only while this is set.
    """

    def __init__(self) -> None:
        self.sockets: list[Socket] = []
        self.requested = asyncio.Event()
        self.awake = asyncio.Event()
        self.awake.set()

    async def behave(self, socket: Socket) -> None:
        await self.awake.wait()
        await authenticate(socket)
        self.sockets.append(socket)
        with contextlib.suppress(ConnectionClosed):
            while True:
                frame = await receive(socket)
                if frame["type"] == "rpcCall":
                    await send(socket, {"type": "rpcResult", "callId": frame["callId"], "result": []})
                elif frame.get("endpoint") == "predict":
                    self.requested.set()

    async def serving(self, client: Any) -> "asyncio.Task[Any]":
        """Start a prediction; return it once the server has received the request."""
        waiting: asyncio.Task[Any] = asyncio.ensure_future(loaded_handle(client).respond("Hi"))
        await asyncio.wait_for(self.requested.wait(), 600)
        return waiting

    def deafen(self, socket: Socket) -> None:
        """Stop reading from a socket: it stays open and silent."""
        socket.transport.pause_reading()

    def freeze(self) -> None:
        """Respond to nothing, on existing and new sockets."""
        self.awake.clear()
        for socket in self.sockets:
            self.deafen(socket)

    async def wake(self) -> None:
        """Resume on all sockets."""
        self.awake.set()
        for socket in self.sockets:
            socket.transport.resume_reading()


@pytest.fixture(autouse=True)
def short_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send a ping after any silence, and give up on it quickly."""
    monkeypatch.setattr(connections, "QUIET", 0.0)
    monkeypatch.setattr(connections, "PING_TIMEOUT", 0.1)


@pytest.fixture
def quiet_server() -> Server:
    return Server()


async def test_a_socket_that_responds_to_pings_is_reused(make_client: Callable[..., Any], quiet_server: Server) -> None:
    async with fake_server(quiet_server.behave) as address, make_client(address) as client:
        for _ in range(3):
            assert await client.llm.list_loaded() == []
    assert len(quiet_server.sockets) == 1


@pytest.mark.slow
async def test_a_call_after_a_silence_gets_a_new_socket_if_the_old_one_is_dead(
    make_client: Callable[..., Any], quiet_server: Server
) -> None:
    async with fake_server(quiet_server.behave) as address, make_client(address) as client:
        await client.llm.list_loaded()
        quiet_server.deafen(quiet_server.sockets[0])
        assert await client.llm.list_loaded() == []
        assert await client.llm.list_loaded() == []
    assert len(quiet_server.sockets) == 2


@pytest.mark.slow
async def test_a_socket_is_checked_after_the_machine_slept(
    make_client: Callable[..., Any], quiet_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "QUIET", 50.0)
    async with fake_server(quiet_server.behave) as address, make_client(address) as client:
        await client.llm.list_loaded()
        quiet_server.deafen(quiet_server.sockets[0])
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 100.0)
        assert await client.llm.list_loaded() == []
    assert len(quiet_server.sockets) == 2


@pytest.mark.slow
async def test_an_expired_timeout_reveals_a_dead_socket_to_all_who_wait_on_it(
    make_client: Callable[..., Any], quiet_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "QUIET", 50.0)
    async with fake_server(quiet_server.behave) as address, make_client(address, **LONG) as client:
        waiting = await quiet_server.serving(client)
        quiet_server.deafen(quiet_server.sockets[0])
        with pytest.raises(lms.LMStudioTimeoutError):
            await loaded_handle(client).respond("Hi", timeout=0.05)
        with pytest.raises(
            lms.LMStudioConnectionLostError, match="answers on a new connection, but not on this one"
        ) as caught:
            await asyncio.wait_for(waiting, 600)
        assert caught.value.retryable
        assert await client.llm.list_loaded() == []
    assert len(quiet_server.sockets) == 2


@pytest.mark.slow
async def test_a_frozen_server_ends_new_calls_only_and_continues_when_it_wakes(
    make_client: Callable[..., Any], quiet_server: Server
) -> None:
    async with fake_server(quiet_server.behave) as address, make_client(address, **LONG) as client:
        waiting = await quiet_server.serving(client)
        quiet_server.freeze()
        for _ in range(2):
            with pytest.raises(lms.LMStudioTimeoutError, match="does not respond") as caught:
                await loaded_handle(client).with_timeouts(connect_timeout=0.3).respond("Hi")
            assert caught.value.timeout_name == "connect_timeout"
        assert not waiting.done()
        await quiet_server.wake()
        for frame in (fragment("a"), packet(END), {"type": "channelClose", "channelId": 1}):
            await send(quiet_server.sockets[0], frame)
        assert (await asyncio.wait_for(waiting, 600)).content == "a"
        assert await client.llm.list_loaded() == []


async def test_a_call_that_is_held_back_is_sent_when_the_server_wakes(
    make_client: Callable[..., Any], quiet_server: Server
) -> None:
    async with fake_server(quiet_server.behave) as address, make_client(address) as client:
        await client.llm.list_loaded()
        quiet_server.freeze()
        listing = asyncio.ensure_future(client.llm.list_loaded())
        await wait_until(lambda: connections_to(address)[0]._check is not None)
        await quiet_server.wake()
        assert await asyncio.wait_for(listing, 600) == []


@pytest.mark.slow
async def test_keepalive_reveals_a_dead_socket_to_a_stream(
    make_client: Callable[..., Any], quiet_server: Server
) -> None:
    async with fake_server(quiet_server.behave) as address, make_client(address, keepalive=0.2, **LONG) as client:
        waiting = await quiet_server.serving(client)
        quiet_server.deafen(quiet_server.sockets[0])
        with pytest.raises(lms.LMStudioConnectionLostError):
            await asyncio.wait_for(waiting, 600)


@pytest.mark.slow
async def test_keepalive_keeps_a_stream_that_is_only_slow(
    make_client: Callable[..., Any], quiet_server: Server
) -> None:
    async with fake_server(quiet_server.behave) as address, make_client(address, keepalive=0.1, **LONG) as client:
        waiting = await quiet_server.serving(client)
        await wait_until(several_pongs(address))
        assert not waiting.done()
        waiting.cancel()
    assert len(quiet_server.sockets) == 1


@pytest.mark.slow
async def test_without_any_other_timeout_the_idle_timeout_limits_the_wait_for_a_frozen_server(
    make_client: Callable[..., Any], quiet_server: Server
) -> None:
    limits = {"queue_timeout": None, "idle_timeout": 0.4, "keepalive": 0.1}
    async with fake_server(quiet_server.behave) as address, make_client(address, **limits) as client:
        waiting = await quiet_server.serving(client)
        quiet_server.freeze()
        with pytest.raises(lms.LMStudioTimeoutError, match="not even to a ping"):
            await asyncio.wait_for(waiting, 600)
        quiet_server.awake.set()


@pytest.mark.slow
async def test_a_silent_socket_that_nobody_waits_on_is_closed(
    make_client: Callable[..., Any], quiet_server: Server
) -> None:
    async with fake_server(quiet_server.behave) as address, make_client(address, keepalive=0.1) as client:
        await client.llm.list_loaded()
        quiet_server.freeze()
        await wait_until(lambda: not any(each._current for each in connections_to(address)))
        quiet_server.awake.set()
        assert await client.llm.list_loaded() == []


def several_pongs(address: str) -> Callable[[], bool]:
    """Return a condition: the only connection to a server has received data several times."""
    received: set[float] = set()

    def condition() -> bool:
        current = connections_to(address)[0]._current
        assert current is not None
        assert current._socket is not None
        received.add(current._socket.received_at)
        return len(received) > 3

    return condition


async def test_a_call_that_is_held_back_reports_that_nothing_listens_any_more(
    make_client: Callable[..., Any], quiet_server: Server
) -> None:
    async with serve(quiet_server.behave, "127.0.0.1", 0, close_timeout=0.2) as server:
        async with make_client(f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}", **LONG) as client:
            waiting = await quiet_server.serving(client)
            server.close(close_connections=False)
            quiet_server.deafen(quiet_server.sockets[0])
            with pytest.raises(lms.LMStudioUnreachableError, match="nothing listens there"):
                await asyncio.wait_for(client.llm.list_loaded(), 600)
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait([waiting])
            with pytest.raises(lms.LMStudioUnreachableError, match="nothing listens there"):
                await asyncio.wait_for(client.llm.list_loaded(), 600)
        quiet_server.sockets[0].transport.abort()


async def test_a_call_that_is_held_back_when_the_socket_breaks_goes_to_a_new_one(
    make_client: Callable[..., Any], quiet_server: Server
) -> None:
    async with fake_server(quiet_server.behave) as address, make_client(address) as client:
        await client.llm.list_loaded()
        quiet_server.freeze()
        listing = asyncio.ensure_future(client.llm.list_loaded())
        await wait_until(lambda: connections_to(address)[0]._check is not None)
        quiet_server.sockets[0].transport.abort()
        quiet_server.awake.set()
        assert await asyncio.wait_for(listing, 600) == []


@pytest.mark.slow
async def test_a_second_socket_that_is_lost_at_once_does_not_take_over(
    make_client: Callable[..., Any], quiet_server: Server
) -> None:
    tried = 0

    async def behave(socket: Socket) -> None:
        nonlocal tried
        tried += 1
        if tried != 2:
            await quiet_server.behave(socket)
            return
        await receive(socket)
        socket.protocol.send_text(b'{"success":true}')
        socket.protocol.send_close(CloseCode.GOING_AWAY)
        socket.transport.write(b"".join(socket.protocol.data_to_send()))  # the client reads both at once

    async with fake_server(behave) as address, make_client(address, **LONG) as client:
        await client.llm.list_loaded()
        quiet_server.deafen(quiet_server.sockets[0])
        assert await asyncio.wait_for(client.llm.list_loaded(), 600) == []
        assert tried == 3


@pytest.mark.parametrize("is_half_closed", [False, True])
async def test_a_closed_socket_ends_although_the_server_reads_nothing_more(
    make_client: Callable[..., Any], *, is_half_closed: bool
) -> None:
    sockets: list[Socket] = []

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        sockets.append(socket)
        if len(sockets) == 1:
            socket.transport.pause_reading()
        else:
            await send_result(socket, [])

    def is_large_request_waiting() -> bool:
        opened = [each._current._socket for each in connections_to(address) if each._current is not None]
        return any(socket is not None and socket.transport.get_write_buffer_size() > 0 for socket in opened)

    async with fake_server(behave) as address, make_client(address, **LONG) as client:
        uploading = asyncio.ensure_future(loaded_handle(client).count_tokens("x" * 20_000_000))
        await wait_until(is_large_request_waiting)
        if is_half_closed:
            sockets[0].transport.write_eof()
        else:
            sockets[0].protocol.send_close(CloseCode.GOING_AWAY)
            sockets[0].transport.write(b"".join(sockets[0].protocol.data_to_send()))
        with pytest.raises(lms.LMStudioConnectionLostError, match=r"1001|no close frame"):
            await asyncio.wait_for(uploading, 600)
        assert await asyncio.wait_for(client.llm.list_loaded(), 600) == []
        sockets[0].transport.abort()
