"""Keepalive: dead sockets are detected and replaced, and a frozen server ends only calls that time out.

In virtual time: a silence is as long as it is to be.
"""

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
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.transport.connect.addresses import Target
from lmstudio_integrations.client.transport.connections import PING_TIMEOUT, QUIET, Connections
from tests.client.both import make_client
from tests.client.fake import Socket, authenticate, fake_server, receive, send, send_result, wait_until
from tests.client.prediction_frames import END, fragment, loaded_handle, packet
from tests.support.virtual_time import in_virtual_time

__all__ = ["make_client"]

LONG: dict[str, Any] = {"queue_timeout": 1e6, "first_token_timeout": 1e6, "idle_timeout": 1e6}


class Server:
    """A fake server whose sockets may stop reading, so that it responds to nothing, not even to pings.

    Attributes:
        sockets: Every socket that was accepted.
        requested: Set when a prediction was requested.
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
        await self.requested.wait()
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
        """Resume: first on the sockets that there are."""
        for socket in self.sockets:
            socket.transport.resume_reading()
        await asyncio.sleep(1)
        self.awake.set()


@pytest.fixture
def server() -> Server:
    return Server()


@in_virtual_time
async def test_a_call_after_a_silence_gets_a_new_socket_only_if_the_old_one_is_dead(
    server: Server, make_client: Callable[..., Any]
) -> None:
    async with fake_server(server.behave) as address, make_client(address, keep_idle=1e6) as client:
        for _ in range(3):
            assert await client.llm.list_loaded() == []
            await asyncio.sleep(QUIET + 1)
        assert len(server.sockets) == 1
        server.deafen(server.sockets[0])
        assert await client.llm.list_loaded() == []
        assert await client.llm.list_loaded() == []
    assert len(server.sockets) == 2


@in_virtual_time
async def test_a_socket_is_checked_after_the_machine_slept(
    server: Server, monkeypatch: pytest.MonkeyPatch, make_client: Callable[..., Any]
) -> None:
    async with fake_server(server.behave) as address, make_client(address) as client:
        await client.llm.list_loaded()
        server.deafen(server.sockets[0])
        now = time.time()
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: now + QUIET + 1)  # the monotonic clock stands still meanwhile
            assert await client.llm.list_loaded() == []
    assert len(server.sockets) == 2


@in_virtual_time
async def test_an_expired_timeout_reveals_a_dead_socket_to_all_who_wait_on_it(
    server: Server, make_client: Callable[..., Any]
) -> None:
    async with fake_server(server.behave) as address, make_client(address, **LONG) as client:
        waiting = await server.serving(client)
        server.deafen(server.sockets[0])
        with pytest.raises(lms.LMStudioTimeoutError):
            await loaded_handle(client).respond("Hi", total_timeout=1)
        with pytest.raises(lms.LMStudioConnectionLostError, match="answers on a new connection") as caught:
            await waiting
        assert caught.value.retryable
        assert await client.llm.list_loaded() == []
    assert len(server.sockets) == 2


@in_virtual_time
async def test_a_frozen_server_ends_new_calls_only_and_continues_when_it_wakes(
    server: Server, make_client: Callable[..., Any]
) -> None:
    async with fake_server(server.behave) as address, make_client(address, **LONG) as client:
        waiting = await server.serving(client)
        server.freeze()
        await asyncio.sleep(QUIET + 1)
        for _ in range(2):
            with pytest.raises(lms.LMStudioTimeoutError, match="does not respond") as caught:
                await loaded_handle(client).with_timeouts(connect_timeout=3).respond("Hi")
            assert caught.value.timeout_name == "connect_timeout"
        held_back = asyncio.ensure_future(client.llm.list_loaded())
        await asyncio.sleep(1)
        assert not waiting.done()
        await server.wake()
        assert await held_back == []
        for frame in (fragment("a"), packet(END), {"type": "channelClose", "channelId": 1}):
            await send(server.sockets[0], frame)
        assert (await waiting).content == "a"
    assert len(server.sockets) == 1


@in_virtual_time
async def test_without_any_other_timeout_the_idle_timeout_limits_the_wait_for_a_frozen_server(
    server: Server, make_client: Callable[..., Any]
) -> None:
    limits: dict[str, Any] = {"queue_timeout": None, "idle_timeout": 9.0, "keepalive": 2.0}
    async with fake_server(server.behave) as address, make_client(address, **limits) as client:
        waiting = await server.serving(client)
        server.freeze()
        with pytest.raises(lms.LMStudioTimeoutError, match="not even to a ping"):
            await waiting
        await server.wake()


@in_virtual_time
async def test_a_socket_that_is_never_accepted_is_replaced_although_somebody_always_waits(
    server: Server, make_client: Callable[..., Any]
) -> None:
    opened: list[Socket] = []

    async def behave(socket: Socket) -> None:
        opened.append(socket)
        if len(opened) > 1:
            await server.behave(socket)

    async with fake_server(behave) as address, make_client(address, connect_timeout=10) as client:
        calls = []
        for _ in range(6):
            calls.append(asyncio.ensure_future(client.llm.list_loaded()))
            await asyncio.sleep(4)
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [lms.LMStudioTimeoutError, *[list] * 5]
        assert len(opened) == 2


@pytest.mark.parametrize("patience", [30, None])
@in_virtual_time
async def test_a_slow_socket_is_kept_as_long_as_a_caller_may_wait_for_it(
    server: Server, patience: float | None, make_client: Callable[..., Any]
) -> None:
    opened: list[Socket] = []

    async def behave(socket: Socket) -> None:
        opened.append(socket)
        await asyncio.sleep(20)
        await server.behave(socket)

    async with (
        fake_server(behave) as address,
        make_client(address, connect_timeout=10) as hasty,
        make_client(address, connect_timeout=patience) as patient,
    ):
        calls = [client.llm.list_loaded() for client in (hasty, patient)]
        error, found = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(error, lms.LMStudioTimeoutError)
        assert found == []
        assert len(opened) == 1


@in_virtual_time
async def test_a_silent_socket_that_nobody_waits_on_is_closed(server: Server, make_client: Callable[..., Any]) -> None:
    async with fake_server(server.behave) as address, make_client(address, keepalive=5, keep_idle=1e6) as client:
        await client.llm.list_loaded()
        server.freeze()
        await asyncio.sleep(5 + 2 * PING_TIMEOUT)
        await server.wake()
        assert await client.llm.list_loaded() == []
    assert len(server.sockets) == 2


@in_virtual_time
async def test_a_call_that_is_held_back_reports_that_nothing_listens_any_more(
    server: Server, make_client: Callable[..., Any]
) -> None:
    async with serve(server.behave, "127.0.0.1", 0, close_timeout=0.2) as listening:
        async with make_client(f"127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}", **LONG) as client:
            waiting = await server.serving(client)
            listening.close(close_connections=False)
            server.deafen(server.sockets[0])
            await asyncio.sleep(QUIET + 1)
            with pytest.raises(lms.LMStudioUnreachableError, match="nothing listens there"):
                await client.llm.list_loaded()
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait([waiting])
            with pytest.raises(lms.LMStudioUnreachableError, match="nothing listens there"):
                await client.llm.list_loaded()
        server.sockets[0].transport.abort()


@pytest.mark.parametrize("is_broken", [False, True])
@in_virtual_time
async def test_no_call_that_was_held_back_is_lost_with_its_socket(
    server: Server, *, is_broken: bool, make_client: Callable[..., Any]
) -> None:
    """Another socket takes the calls, because the first one is silent or broken, but for those that are cancelled."""
    async with fake_server(server.behave) as address, make_client(address) as client:
        assert await client.llm.list_loaded() == []
        server.deafen(server.sockets[0])
        await asyncio.sleep(QUIET + 1)
        if is_broken:
            asyncio.get_running_loop().call_later(PING_TIMEOUT / 2, server.sockets[0].transport.abort)
        calls = [asyncio.ensure_future(client.llm.list_loaded()) for _ in range(6)]
        await asyncio.sleep(PING_TIMEOUT / 4)
        for call in (calls[0], calls[3], calls[-1]):
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
    cancelled = [isinstance(result, asyncio.CancelledError) for result in results]
    assert cancelled == [True, False, False, True, False, True]
    assert [result for result in results if isinstance(result, list)] == [[]] * 3
    assert len(server.sockets) == 2


@in_virtual_time
async def test_a_second_socket_that_is_lost_at_once_does_not_take_over(
    server: Server, make_client: Callable[..., Any]
) -> None:
    tried = 0

    async def behave(socket: Socket) -> None:
        nonlocal tried
        tried += 1
        if tried != 2:
            await server.behave(socket)
            return
        await receive(socket)
        socket.protocol.send_text(b'{"success":true}')
        socket.protocol.send_close(CloseCode.GOING_AWAY)
        socket.transport.write(b"".join(socket.protocol.data_to_send()))  # the client reads both at once

    async with fake_server(behave) as address, make_client(address, keep_idle=1e6, **LONG) as client:
        await client.llm.list_loaded()
        server.deafen(server.sockets[0])
        await asyncio.sleep(QUIET + 1)
        assert await client.llm.list_loaded() == []
        assert tried == 3


@in_virtual_time
async def test_a_check_that_succeeds_as_its_socket_is_closed_ends_with_it(
    server: Server, monkeypatch: pytest.MonkeyPatch, make_client: Callable[..., Any]
) -> None:
    async with fake_server(server.behave) as address, make_client(address) as client:
        await client.llm.list_loaded()
        ((_, connection),) = Connections.of(IOThread.current())._connections.items()
        current = connection._current
        assert current is not None

        async def respond_and_close(_limit: float) -> bool:
            current.close()
            return True

        monkeypatch.setattr(current, "responds_to_ping", respond_and_close)
        connection._start_check(current)
        check = connection._check
        assert check is not None
        await asyncio.wait([check])
        assert check.exception() is None


@pytest.mark.parametrize("is_half_closed", [False, True])
async def test_a_closed_socket_ends_although_the_server_reads_nothing_more(*, is_half_closed: bool) -> None:
    """On a socket of the system, whose buffers are full."""
    sockets: list[Socket] = []

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        sockets.append(socket)
        if len(sockets) == 1:
            socket.transport.pause_reading()
        else:
            await send_result(socket, [])

    def is_large_request_waiting() -> bool:
        connections = Connections.of(IOThread.current())._connections.items()
        current = [each._current for (target, _), each in connections if target == Target.of(address, None)]
        opened = [each._socket for each in current if each is not None]
        return any(socket is not None and socket.transport.get_write_buffer_size() > 0 for socket in opened)

    async with fake_server(behave) as address, lms.AsyncClient(address, **LONG) as client:
        uploading = asyncio.ensure_future(loaded_handle(client).count_tokens("x" * 20_000_000))
        await wait_until(is_large_request_waiting)
        if is_half_closed:
            sockets[0].transport.write_eof()
        else:
            sockets[0].protocol.send_close(CloseCode.GOING_AWAY)
            sockets[0].transport.write(b"".join(sockets[0].protocol.data_to_send()))
        with pytest.raises(lms.LMStudioConnectionLostError, match=r"1001|no close frame"):
            await uploading
        assert await client.llm.list_loaded() == []
        sockets[0].transport.abort()
