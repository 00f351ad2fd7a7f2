"""The life of a connection: who waits for it and how long, when it closes, and that nothing remains of it."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.files.uploads import ensure_uploaded, prepare_file
from lmstudio_integrations.client.transport import connections
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.connect.addresses import Target
from lmstudio_integrations.client.transport.connections import Connection, Connections
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.client.transport.mailboxes import IOTask, LoopMailbox, ThreadMailbox
from lmstudio_integrations.client.transport.operation import Call, Operation
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.protocol.endpoints import rpc
from tests.client.fake import Socket, authenticate, fake_server, on_io_thread, receive, send_result, wait_until


def connections_to(address: str) -> list[Connection]:
    """Return the connections of this process to a server."""
    pool = Connections.of(IOThread.current())
    return [made for (target, _), made in list(pool._connections.items()) if target == Target.of(address, None)]


async def test_a_short_connect_timeout_of_one_caller_does_not_affect_another(make_client: Callable[..., Any]) -> None:
    accepting = asyncio.Event()
    sockets = 0

    async def behave(socket: Socket) -> None:
        nonlocal sockets
        sockets += 1
        await accepting.wait()
        await authenticate(socket)
        await send_result(socket, [])

    async with (
        fake_server(behave) as address,
        make_client(address, connect_timeout=0.2) as limited,
        make_client(address) as by_default,
    ):
        first = asyncio.ensure_future(limited.llm.list_loaded())
        await wait_until(lambda: bool(connections_to(address)))
        second = asyncio.ensure_future(by_default.llm.list_loaded())
        with pytest.raises(lms.LMStudioTimeoutError):
            await first
        accepting.set()
        assert await second == []
        assert sockets == 1


async def test_no_connection_is_opened_for_a_cancelled_call() -> None:
    closed = asyncio.Event()

    async def behave(socket: Socket) -> None:
        await socket.wait_closed()
        closed.set()

    async with fake_server(behave) as address, lms.AsyncClient(address, connect_timeout=0.2) as client:
        with pytest.raises(lms.LMStudioTimeoutError):
            await client.llm.list_loaded()
        await asyncio.wait_for(closed.wait(), 600)


async def test_a_call_that_comes_as_an_idle_connection_closes_gets_a_new_one(server: Emulator) -> None:
    async with lms.AsyncClient(server.address, keep_idle=0.0) as client:
        await client.llm.list_loaded()
        operation, calls = Operation(client._context), list[Call]()

        def expire_and_call() -> None:
            for connection in connections_to(server.address):
                connection._tick()
            io = IOThread.current()
            io.submit = lambda function, *args: function(*args)  # type: ignore[method-assign]  # at once
            try:
                calls.append(operation.start("llm", rpc("llm", "listLoaded"), None, label="Model list"))
            finally:
                del io.submit

        client._context.mailbox_type = ThreadMailbox
        await on_io_thread(expire_and_call)
        assert await asyncio.to_thread(calls[0].mailbox.wait) == [[]]


async def test_nothing_remains_of_a_server_that_closed_before_its_client(make_client: Callable[..., Any]) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await send_result(socket, [])
        await socket.close()

    async with fake_server(behave) as address:
        async with make_client(address) as client:
            await client.llm.list_loaded()
            await wait_until(lambda: not any(each._current for each in connections_to(address)))
        await wait_until(lambda: not connections_to(address))


async def test_cancelling_a_finished_call_opens_no_connection() -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        await socket.close()

    async with fake_server(behave) as address:
        client = lms.AsyncClient(address)
        call = Operation(client._context).start("llm", rpc("llm", "listLoaded"), None, label="Model list")
        with pytest.raises(lms.LMStudioConnectionLostError):
            await call.mailbox.wait()
        await client.aclose()
        call.cancel()
        await on_io_thread(lambda: None)
        assert not connections_to(address)


async def test_a_stream_that_the_server_never_ends_does_not_keep_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "LINGER", 0.0)
    frames: list[dict[str, Any]] = []
    requested, closed = asyncio.Event(), asyncio.Event()

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        frames.append(await receive(socket))
        requested.set()
        frames.append(await receive(socket))
        await socket.wait_closed()
        closed.set()

    async with fake_server(behave) as address:
        async with lms.AsyncClient(address) as client:
            loading = asyncio.ensure_future(client.llm.model("chatty"))
            await asyncio.wait_for(requested.wait(), 600)
            loading.cancel()
            await asyncio.wait([loading])
        await asyncio.wait_for(closed.wait(), 600)
    assert [frame["type"] for frame in frames] == ["channelCreate", "channelSend"]


async def test_a_pending_call_fails_when_its_client_is_closed(server: Emulator) -> None:
    def close_meanwhile(io: IOThread) -> LoopMailbox:
        context.close()
        return LoopMailbox(io)

    context = ClientContext(Target.of(server.address, None), {}, close_meanwhile)
    call = Operation(context).start("llm", rpc("llm", "listLoaded"), None, label="Model list")
    with pytest.raises(lms.LMStudioConnectionLostError, match="the client was closed"):
        await call.mailbox.wait()
    assert not server.connections


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")])
async def test_a_host_name_that_cannot_be_resolved_is_named_in_the_error(
    make_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise error

    async with make_client("no-such-host.invalid") as client:
        monkeypatch.setattr(socket, "getaddrinfo", fail)
        with pytest.raises(lms.LMStudioUnreachableError, match=r"'no-such-host\.invalid' cannot be resolved"):
            await client.llm.list_loaded()


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


async def test_a_call_that_cannot_be_started_fails_at_once(
    make_client: Callable[..., Any], server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise LookupError("no connection can be made")

    async with make_client(server.address) as client:
        monkeypatch.setattr(Connection, "start", fail)
        with pytest.raises(LookupError, match="no connection can be made"):
            await client.llm.list_loaded()


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
        operation = Operation(client._context)
        upload = prepare_file(operation, b"text", "note.txt")
        reply = await next(upload).mailbox.wait()
        await wait_until(lambda: not any(each._current for each in connections_to(address)))
        other = await client.files.prepare_file(b"else", "other.txt")
        with pytest.raises(StopIteration) as end:
            upload.send(reply)
        await on_io_thread(lambda: None)
        assert other.identifier == "file 2"
        with contextlib.closing(ensure_uploaded(operation, end.value.value)) as renewal:
            assert isinstance(next(renewal), IOTask)  # which reads the file again


async def test_a_coroutine_that_has_ended_is_forgotten() -> None:
    tasks = Connections.of(IOThread.current()).tasks
    with lms.Client("127.0.0.1:9") as client:
        endless = client._context.run_task(asyncio.Event().wait)
        running: Any = next(endless)
        ended: Any = next(client._context.run_task(lambda: asyncio.sleep(0)))
        await wait_until(lambda: ended.mailbox.done and ended not in list(tasks))
        assert running in list(tasks)
        endless.close()
        await wait_until(lambda: running not in list(tasks))
