"""The life of a connection: who waits for it and how long, when it closes, and that nothing remains of it."""

import asyncio
import contextlib
import errno
import gc
import os
import socket
import ssl
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.concurrency.mailboxes import IOTask, LoopMailbox
from lmstudio_integrations.client.files.uploads import ensure_uploaded, prepare_file
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.connect import opening, probe
from lmstudio_integrations.client.transport.connect.addresses import Target
from lmstudio_integrations.client.transport.connections import LINGER, Connection, Connections
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.protocol.endpoints import rpc
from lmstudio_integrations.protocol.session import ClientSession
from tests.client.both import make_client
from tests.client.fake import (
    Socket,
    authenticate,
    context_of,
    fake_server,
    hang_up,
    receive,
    respond_to_calls,
    send,
    send_result,
)
from tests.client.prediction_frames import loaded_handle
from tests.support.virtual_time import in_virtual_time

__all__ = ["make_client"]


class Server:
    """A fake server that responds to all calls.

    Attributes:
        accepted: How many sockets it has accepted.
        opened: How many of them are open.
    """

    def __init__(self, behave: Callable[[Socket], Awaitable[None]] = respond_to_calls) -> None:
        self.accepted = self.opened = 0
        self._behave = behave

    async def __call__(self, socket: Socket) -> None:
        self.accepted += 1
        self.opened += 1
        try:
            await self._behave(socket)
            await socket.wait_closed()
        finally:
            self.opened -= 1


async def test_clients_with_the_same_credentials_share_their_sockets(server: Emulator) -> None:
    async with lms.AsyncClient(server.address) as first:
        await first.llm.model("chatty")
        with lms.Client(server.address) as second:
            await asyncio.to_thread(second.llm.model, "chatty")
        assert len(server.connections) == 1


@in_virtual_time
async def test_no_connection_is_kept_for_a_call_that_has_timed_out(make_client: Callable[..., Any]) -> None:
    server = Server(lambda socket: socket.wait_closed())
    async with fake_server(server) as address, make_client(address, connect_timeout=2) as client:
        with pytest.raises(lms.LMStudioTimeoutError):
            await client.llm.list_loaded()
        await asyncio.sleep(2)
        assert (server.accepted, server.opened) == (1, 0)


@in_virtual_time
async def test_an_idle_connection_closes_after_its_last_client_or_when_an_adapter_has_not_used_it(
    make_client: Callable[..., Any],
) -> None:
    server = Server()
    async with fake_server(server) as address, make_client(address) as client:
        await client.llm.list_loaded()
        await asyncio.sleep(10 * LINGER)
        assert server.opened == 1
        async with make_client(address, keep_idle=1) as adapter:
            await adapter.llm.list_loaded()
        assert server.accepted == 1, "they share it"
        await client.aclose()
        await asyncio.sleep(LINGER - 1)
        assert server.opened == 1
        await asyncio.sleep(2)
        assert server.opened == 0
        adapter = make_client(address, keep_idle=1)
        await adapter.llm.list_loaded()
        await asyncio.sleep(2)
        assert server.opened == 0
        assert await adapter.llm.list_loaded() == []


@in_virtual_time
async def test_a_call_works_at_each_moment_at_which_an_idle_connection_closes(make_client: Callable[..., Any]) -> None:
    server, is_new = Server(), list[bool]()
    async with fake_server(server) as address, make_client(address, keep_idle=1) as client:
        for milliseconds in range(-60, 60, 2):
            accepted = server.accepted
            assert await client.llm.list_loaded() == []
            is_new.append(server.accepted > accepted)
            await asyncio.sleep(1.1 + milliseconds / 1000)
        assert {*is_new[1:]} == {False, True}


@in_virtual_time
async def test_a_call_is_not_sent_on_a_socket_whose_end_is_not_reported_yet(make_client: Callable[..., Any]) -> None:
    server = Server()
    async with fake_server(server) as address, make_client(address) as client:
        await client.llm.list_loaded()
        ((_, connection),) = Connections.of(IOThread.current())._connections.items()
        assert connection._current is not None
        assert connection._current._socket is not None
        connection._current._socket.transport.abort()  # as it does when the server's close frame arrives
        assert await client.llm.list_loaded() == []
    assert server.accepted == 2


@in_virtual_time
async def test_cancelling_a_finished_call_opens_no_connection() -> None:
    server = Server(hang_up)
    async with fake_server(server) as address:
        client = lms.AsyncClient(address)
        (call,) = Operation(context_of(client)).start("llm", rpc("llm", "listLoaded"), None, label="Model list")
        with pytest.raises(lms.LMStudioConnectionLostError):
            await call.mailbox.wait()
        await client.aclose()
        call.cancel()
        await asyncio.sleep(1)
    assert server.accepted == 1


@in_virtual_time
async def test_a_stream_that_the_server_never_ends_does_not_keep_the_connection(
    make_client: Callable[..., Any],
) -> None:
    types: list[str] = []

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        while True:
            types.append((await receive(socket))["type"])

    server = Server(behave)
    async with fake_server(server) as address:
        async with make_client(address) as client:
            loading = asyncio.ensure_future(client.llm.model("chatty"))
            await asyncio.sleep(1)
            loading.cancel()
            await asyncio.wait([loading])
        await asyncio.sleep(LINGER + 1)
        assert (types, server.opened) == (["channelCreate", "channelSend"], 0)


async def test_a_pending_call_fails_when_its_client_is_closed() -> None:
    def close_meanwhile(io: IOThread) -> LoopMailbox:
        context.close()
        return LoopMailbox(io)

    context = ClientContext(Target.of("127.0.0.1:9", None), {}, close_meanwhile)
    (call,) = Operation(context).start("llm", rpc("llm", "listLoaded"), None, label="Model list")
    with pytest.raises(lms.LMStudioConnectionLostError, match="the client was closed"):
        await call.mailbox.wait()


async def test_a_call_that_cannot_be_started_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise LookupError("no connection can be made")

    monkeypatch.setattr(Connection, "start", fail)
    async with lms.AsyncClient("127.0.0.1:9") as client:
        with pytest.raises(LookupError, match="no connection can be made"):
            await client.llm.list_loaded()


@pytest.mark.parametrize("host", ["no-such-host.invalid", f"{'a' * 64}.invalid"])
async def test_a_host_name_that_cannot_be_resolved_is_named_in_the_error(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    async with lms.AsyncClient(host) as client:
        if len(host) < 64:  # the other one cannot even be asked for
            monkeypatch.setattr(socket, "getaddrinfo", fail)
        with pytest.raises(lms.LMStudioUnreachableError, match=f"'{host}' cannot be resolved"):
            await client.llm.list_loaded()


@pytest.fixture
def two_addresses(monkeypatch: pytest.MonkeyPatch, server: Emulator) -> str:
    """A host of which one address swallows all packets; at the other, there is a server."""
    loop = IOThread.current().loop
    sock_connect: Callable[..., Awaitable[None]] = loop.sock_connect

    async def swallow(sock: socket.socket, address: tuple[str, int]) -> None:
        if address[0] == "192.0.2.1":
            await asyncio.Event().wait()
        await sock_connect(sock, address)

    def resolve(*_args: object, **_kwargs: object) -> list[object]:
        both = [("192.0.2.1", server.port), ("127.0.0.1", server.port)]
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in both]

    monkeypatch.setattr(loop, "sock_connect", swallow)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for module in (opening, probe):
        monkeypatch.setattr(module, "NEXT_ADDRESS_DELAY", 0.0)
    return f"studio.test:{server.port}"


async def test_an_address_that_swallows_packets_does_not_hide_another_one_of_its_host(two_addresses: str) -> None:
    async with lms.AsyncClient(two_addresses, connect_timeout=None) as client:
        assert await client.list_downloaded_models()
    assert await lms.AsyncClient.is_valid_api_host(two_addresses)


@pytest.mark.parametrize(
    ("number", "text"), [(errno.EMFILE, "this process has no file descriptor left"), (errno.ENFILE, "this machine has")]
)
async def test_an_error_says_that_no_file_descriptor_is_left(
    monkeypatch: pytest.MonkeyPatch, server: Emulator, number: int, text: str
) -> None:
    def fail(*_arguments: object, **_named: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(IOThread.current().loop, "sock_connect", fail)
    async with lms.AsyncClient(server.address) as client:
        with pytest.raises(lms.LMStudioUnreachableError, match=text) as caught:
            await client.list_downloaded_models()
    assert "nothing listens" not in str(caught.value)


def test_an_ssl_context_needs_an_encrypted_host() -> None:
    with pytest.raises(lms.LMStudioValueError, match=r"ssl_context .* 'localhost:1'"):
        lms.Client("localhost:1", ssl_context=ssl.create_default_context())


@pytest.mark.slow
def test_a_call_during_the_shutdown_of_the_process_is_rejected() -> None:
    code = """
import atexit

def last():
    try:
        client.llm.list_loaded()
    except lms.LMStudioConnectionLostError as error:
        print(error)

atexit.register(last)
import lmstudio_integrations as lms
client = lms.Client("127.0.0.1:9")
try:
    client.llm.list_loaded()
except lms.LMStudioUnreachableError:
    pass
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert run.stdout.startswith("the process is ending")
    assert run.stderr == ""


@in_virtual_time
async def test_a_file_is_uploaded_again_if_its_socket_was_replaced_before_the_caller_read_the_reply() -> None:
    sockets = 0

    async def behave(socket: Socket) -> None:
        nonlocal sockets
        sockets += 1
        await authenticate(socket)
        await send_result(socket, {"identifier": f"file {sockets}", "sizeBytes": 4, "fileType": "text/plain"})
        if sockets == 1:
            await socket.close()

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        operation = Operation(context_of(client))
        upload = prepare_file(operation, b"text", "note.txt")
        reply = await next(upload).mailbox.wait()
        await asyncio.sleep(1)
        other = await client.files.prepare_file(b"else", "other.txt")
        with pytest.raises(StopIteration) as end:
            upload.send(reply)
        await asyncio.sleep(0)
        assert other.identifier == "file 2"
        with contextlib.closing(ensure_uploaded(operation, end.value.value)) as renewal:
            assert isinstance(next(renewal), IOTask)  # which reads the file again


@in_virtual_time
async def test_a_connection_stays_open_while_a_handle_to_an_uploaded_file_is_alive(
    make_client: Callable[..., Any],
) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await send_result(socket, {"identifier": "1", "sizeBytes": 4, "fileType": "text/plain"})

    server = Server(behave)
    async with fake_server(server) as address:
        async with make_client(address, keep_idle=1) as client:
            handle = await client.files.prepare_file(b"text", "note.txt")
        await asyncio.sleep(10 * LINGER)
        assert server.opened == 1
        del handle
        gc.collect()
        await asyncio.sleep(2 * LINGER)
        assert server.opened == 0


@in_virtual_time
async def test_if_one_of_many_calls_fails_the_others_are_closed(make_client: Callable[..., Any]) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        call = await receive(socket)
        await send(socket, {"type": "rpcError", "callId": call["callId"], "error": {"title": "no"}})
        await socket.wait_closed()

    async with fake_server(behave) as address, make_client(address) as client:
        with pytest.raises(lms.LMStudioServerError, match="no"):
            await loaded_handle(client).tokenize(["a", "b", "c"])
        await asyncio.sleep(1)
        ((_, connection),) = Connections.of(IOThread.current())._connections.items()
        assert connection._current is not None
        assert connection._current.session.idle


@in_virtual_time
async def test_an_error_in_delivering_a_message_ends_its_connection_alone(
    make_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, receive_all = Server(), ClientSession.receive

    def fail_once(session: ClientSession, data: str | bytes, now: float) -> None:
        if session.ready and server.accepted == 1:
            raise LookupError("a packet is in no list")
        receive_all(session, data, now)

    async with fake_server(server) as address, make_client(address) as client:
        monkeypatch.setattr(ClientSession, "receive", fail_once)
        with pytest.raises(lms.LMStudioConnectionLostError, match="a packet is in no list"):
            await client.llm.list_loaded()
        assert await client.llm.list_loaded() == []


async def test_who_announces_that_it_waits_looks_once_more_whether_something_has_arrived() -> None:
    waited: list[bool] = []

    class Looking(LoopMailbox):
        def is_empty(self) -> bool:
            waited.append(self._waiting)
            return super().is_empty()

    assert Looking(IOThread.current()).must_wait()
    assert waited == [True]


async def test_what_arrives_with_the_end_while_the_caller_looks_is_not_lost() -> None:
    mailbox = LoopMailbox(IOThread.current())

    class Arriving(deque[str]):
        def __len__(self) -> int:
            if mailbox.done:
                return super().__len__()
            self.append("the last")
            mailbox.done = True
            return 0

    mailbox._items = Arriving()
    assert mailbox.pop_all() is None
    assert mailbox.pop_all() == ["the last"]
    assert mailbox.pop_all() == []
