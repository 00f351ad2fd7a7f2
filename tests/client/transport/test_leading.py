"""A caller who reads a stream alone runs the event loop in its own thread, and nobody else has to wait for that."""

import asyncio
import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

import lmstudio_integrations as lms
from lmstudio_integrations.client.transport import loop as client_loop
from lmstudio_integrations.client.transport.connect.opening import READ_SIZE, Socket
from lmstudio_integrations.client.transport.connections import Connection
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.protocol.session import ClientSession
from tests.support.threads import together

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the event loop of Windows stays in the I/O thread")

MAIN = threading.main_thread().ident


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server whose tokens come one by one."""
    rules = [{"when": {"last": "^quick"}, "then": [{"text": "Done."}]}, {"then": [{"text": "on and on " * 10_000}]}]
    with Emulator([{"key": "m", "tokens_per_second": 200, "rules": rules}]) as running:
        yield running


@pytest.fixture
def client(server: Emulator) -> Iterator[lms.Client]:
    """A client of the server."""
    with lms.Client(server.address) as made:
        yield made


@pytest.fixture
def stream(client: lms.Client) -> Iterator[Any]:
    """A stream that never ends."""
    with client.llm.lazy_model("m").respond_stream("Hi") as begun:
        yield begun


@pytest.fixture
def receivers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The thread in which each batch of the client was received."""
    threads: list[int] = []
    receive = ClientSession.receive

    def noting(session: ClientSession, message: bytes, now: float) -> None:
        threads.append(threading.get_ident())
        receive(session, message, now)

    monkeypatch.setattr(ClientSession, "receive", noting)
    return threads


def read(stream: Any, times: int = 10) -> None:
    for _ in range(times):
        next(stream)


def led(receivers: list[int]) -> bool:
    return receivers[-1] == threading.get_ident()


def leads(stream: Any, receivers: list[int]) -> bool:
    """Read until this thread runs the loop: it is handed over when the second wait begins."""
    for _ in range(1000):
        next(stream)
        if led(receivers):
            return True
    return False


def test_who_reads_a_stream_alone_receives_it_in_its_own_thread(
    client: lms.Client, stream: Any, receivers: list[int]
) -> None:
    assert leads(stream, receivers)
    stream.close()

    def in_another_thread(_: int) -> bool:
        with client.llm.lazy_model("m").respond_stream("Hi") as other:
            return leads(other, receivers)

    assert together(1, in_another_thread) == [True]


def test_the_io_thread_serves_others_meanwhile(client: lms.Client, stream: Any, receivers: list[int]) -> None:
    assert leads(stream, receivers)
    # This thread waits for the other one, and does not run the loop.
    assert together(1, lambda _: client.llm.lazy_model("m").respond("quick").content)[0]
    assert client.llm.lazy_model("m").respond("quick").content  # nor does a call of its own disturb the stream
    read(stream)

    async def respond() -> str:
        async with lms.AsyncClient(client_address(client)) as other:
            return str(await other.llm.lazy_model("m").respond("quick"))

    assert asyncio.run(respond())
    read(stream)


def client_address(client: lms.Client) -> str:
    return str(client.llm.lazy_model("any")._model.context.target.address)


def test_two_streams_are_read_in_turns(client: lms.Client, stream: Any, receivers: list[int]) -> None:
    with client.llm.lazy_model("m").respond_stream("Hi") as other:
        for _ in range(10):
            next(stream)
            next(other)
        assert leads(other, receivers)


def test_the_io_thread_receives_what_comes_while_the_caller_does_something_else(
    stream: Any, receivers: list[int]
) -> None:
    assert leads(stream, receivers)
    received_there = threading.Event()
    IOThread.current().submit(received_there.set)
    assert received_there.wait(600)
    assert leads(stream, receivers)
    while led(receivers):  # it has `REST` seconds
        pass
    read(stream)


def test_a_stream_may_be_read_inside_of_a_loop_and_in_another_thread(stream: Any, receivers: list[int]) -> None:
    read(stream)

    async def read_there() -> bool:
        read(stream)
        return led(receivers)

    assert not asyncio.run(read_there())
    assert together(1, lambda _: leads(stream, receivers)) == [True]
    assert leads(stream, receivers)


@pytest.mark.parametrize("handled", [signal.SIGALRM, signal.SIGINT] if os.name != "nt" else [])
def test_with_a_handler_that_may_raise_the_main_thread_does_not_run_the_loop(
    stream: Any, receivers: list[int], handled: int
) -> None:
    previous = signal.signal(handled, lambda *_: None)
    try:
        read(stream)
        assert MAIN not in receivers
    finally:
        signal.signal(handled, previous)


def test_ctrl_c_in_the_middle_of_a_step_tears_nothing(
    server: Emulator, client: lms.Client, stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(stream)
    receive, steps = ClientSession.receive, list[str]()

    def interrupted(session: ClientSession, message: bytes, now: float) -> None:
        if threading.get_ident() == MAIN and not steps:
            steps.append("begun")
            signal.raise_signal(signal.SIGINT)
            steps.append("went on")
        receive(session, message, now)

    monkeypatch.setattr(ClientSession, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read(stream, 1000)
    assert steps == ["begun", "went on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    server.wait_for(lambda: server.predictions[-1].stop_reason == "userStopped")
    assert client.llm.lazy_model("m").respond("quick").content
    assert len(server.connections) == 1


def test_a_handler_that_is_set_while_a_stream_is_open_stays_and_runs_where_nothing_is_torn(
    stream: Any, receivers: list[int]
) -> None:
    assert leads(stream, receivers)
    handled = threading.Event()

    def handle(*_: object) -> None:
        handled.set()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        read(stream)
        assert signal.getsignal(signal.SIGINT) is handle
        assert not led(receivers)
        signal.raise_signal(signal.SIGINT)
        assert handled.is_set()
    finally:
        signal.signal(signal.SIGINT, previous)
    assert leads(stream, receivers)


def test_the_timeout_of_a_call_ends_it_although_tokens_come_all_the_time(client: lms.Client) -> None:
    with pytest.raises(lms.LMStudioTimeoutError, match="total_timeout"):
        read(client.llm.lazy_model("m").respond_stream("Hi", total_timeout=0.3), 100_000)


def test_nothing_is_kept_of_a_socket_that_was_closed(
    server: Emulator, client: lms.Client, stream: Any, receivers: list[int]
) -> None:
    loop: Any = IOThread.current().loop
    assert leads(stream, receivers)
    mine = [each for each in loop.direct_readers.values() if each.func.__self__.remote_address[1] == server.port]
    assert mine
    server.stop()
    with pytest.raises(lms.LMStudioError):
        client.llm.lazy_model("m").respond("quick")
    assert not [each for each in loop.direct_readers.values() if each in mine]


class StopError(Exception):
    """Raised into a thread from outside."""


def test_an_exception_that_is_raised_into_the_thread_ends_the_connection_and_the_next_call_opens_another(
    server: Emulator, client: lms.Client
) -> None:
    ended = threading.Event()

    def stop() -> None:
        """Raise an exception as frameworks for jobs do it when a job takes too long; asyncio may swallow one."""
        io = IOThread.current()
        while not ended.wait(0.02):
            leader = io.leader
            if leader is not None:
                thread = ctypes.c_ulong(leader.owner or 0)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(StopError))

    def work(number: int) -> str:
        if number:
            stop()
            return "stopped"
        # In the middle of a step, it is the reason for which the connection is lost.
        with pytest.raises((StopError, lms.LMStudioConnectionLostError)):
            read(client.llm.lazy_model("m").respond_stream("Hi"), 10_000)
        ended.set()
        return client.llm.lazy_model("m").respond("quick").content

    assert together(2, work)[0]
    server.wait_for(lambda: server.predictions[0].stop_reason is not None)


def test_an_exception_in_a_step_of_the_loop_is_raised_where_the_stream_is_read(
    client: lms.Client, stream: Any, receivers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert leads(stream, receivers)

    def tick(_: Connection) -> None:
        raise StopError

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "_tick", tick)
        with pytest.raises(StopError):
            read(stream, 10_000)
    assert client.llm.lazy_model("m").respond("quick").content


def test_ctrl_c_is_let_go_in_the_child_of_a_fork() -> None:
    holder = client_loop.InterruptHolder(lambda: None)
    assert holder.hold()
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    holder.release()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# What is read without the library -------------------------------------------------------------------------------------


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


def _connected(kind: Callable[[ClientProtocol], Any], early: bytes, head_cut: int) -> Any:
    """Return a connection after its handshake, whose end may be cut off; with it, something else may arrive."""
    protocol = ClientProtocol(parse_uri("ws://localhost/"), max_size=1 << 20)
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


async def _messages(connection: Any) -> list[bytes]:
    read = list[bytes]()
    while True:
        reading = asyncio.ensure_future(connection.recv(decode=False))
        await asyncio.sleep(0)
        if not reading.done():
            reading.cancel()
            await asyncio.wait([reading])
            return read
        read.append(reading.result())


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

    async def compare() -> None:
        delivered = list[bytes]()
        ours = _connected(Socket, early, head_cut)
        before = await _messages(ours)
        ours.most_bytes, ours.on_messages = READ_SIZE, delivered.extend
        theirs = _connected(ClientConnection, early, head_cut)
        for piece in pieces:
            ours.data_received(piece)
            theirs.data_received(piece)
        assert before + delivered + await _messages(ours) == await _messages(theirs)

    asyncio.run(compare())
