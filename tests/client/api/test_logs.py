"""The log of a server: what its entries are, and how reading it ends."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.types.logs import parse_entry
from tests.client.both import make_client
from tests.client.fake import Socket, authenticate, fake_server, on_io_thread, receive, send
from tests.client.transport.test_connections import connections_to

__all__ = ["make_client"]

AT = 1_795_699_558_878
STATS = {"stopReason": "eosFound", "tokensPerSecond": 40.5}
RUNTIME = {
    "level": "error",
    "message": "no",
    "engineName": "llama.cpp",
    "engineVersion": "1.2",
    "engineType": "gguf",
    "modelIdentifier": "chatty",
    "instanceReference": "r",
    "pid": 5,
}

ENTRIES: dict[str, tuple[dict[str, Any], type[lms.LogEntry], dict[str, Any]]] = {
    "an input": (
        {"type": "llm.prediction.input", "input": "Hi", "modelPath": "a/b", "modelIdentifier": "chatty"},
        lms.ModelInputEntry,
        {"input": "Hi", "model_path": "a/b", "model_identifier": "chatty"},
    ),
    "an output": (
        {"type": "llm.prediction.output", "output": "Ho", "modelIdentifier": "chatty", "stats": STATS},
        lms.ModelOutputEntry,
        {"output": "Ho", "stats": lms.LlmPredictionStats(stop_reason="eosFound", tokens_per_second=40.5)},
    ),
    "an output without statistics": (
        {"type": "llm.prediction.output", "output": "Ho", "modelIdentifier": "chatty"},
        lms.ModelOutputEntry,
        {"stats": None},
    ),
    "the server": (
        {"type": "server.log", "content": "started", "level": "warn"},
        lms.ServerEntry,
        {"content": "started", "level": "warn"},
    ),
    "an engine": (
        {"type": "runtime.log", **RUNTIME},
        lms.RuntimeEntry,
        {"message": "no", "engine_name": "llama.cpp", "instance_reference": "r", "pid": 5},
    ),
    "an unknown kind": ({"type": "new.kind", "a": [1]}, lms.LogEntry, {"type": "new.kind"}),
    "a kind that lacks a member": ({"type": "server.log", "level": "info"}, lms.LogEntry, {"type": "server.log"}),
    "a kind with another member": ({"type": "runtime.log", **RUNTIME, "pid": "x"}, lms.LogEntry, {}),
    "a kind that is no word": ({"type": ["server.log"]}, lms.LogEntry, {"type": "['server.log']"}),
}


def packet(data: object) -> dict[str, Any]:
    return {"type": "channelSend", "message": {"type": "log", "log": {"timestamp": AT, "data": data}}}


QUIET = {"type": "server.log", "content": "quiet", "level": "debug"}

BROKEN: dict[str, tuple[dict[str, Any] | None, type[lms.LMStudioError]]] = {
    "the connection is lost": (None, lms.LMStudioConnectionLostError),
    "the server closes the log": ({"type": "channelClose"}, lms.LMStudioChannelClosedError),
    "an error": ({"type": "channelError", "error": {"title": "no"}}, lms.LMStudioServerError),
    "an entry without a time": (
        {"type": "channelSend", "message": {"type": "log", "log": {"data": {}}}},
        lms.LMStudioProtocolError,
    ),
}


@contextlib.asynccontextmanager
async def logging_server(*frames: dict[str, Any] | None) -> AsyncIterator[tuple[str, asyncio.Queue[Any]]]:
    """Serve a log of some frames, the last of which may be the end of the connection.

    Yields:
        The address, and what the client sends.
    """
    received: asyncio.Queue[Any] = asyncio.Queue()

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        opened = await receive(socket)
        received.put_nowait(opened)
        for frame in frames:
            if frame is None:
                await socket.close()
                return
            await send(socket, {**frame, "channelId": opened["channelId"]})
        async for text in socket:
            received.put_nowait(json.loads(text))

    async with fake_server(behave) as address:
        yield address, received


async def next_of(entries: AsyncIterator[lms.LogEntry]) -> lms.LogEntry:
    return await anext(entries)


async def test_each_kind_has_its_class_and_no_other_entry_ends_the_log(make_client: Callable[..., Any]) -> None:
    sent = [packet(data) for data, _, _ in ENTRIES.values()]
    async with logging_server(*sent) as (address, received), make_client(address) as client:
        entries = client.logs()
        for name, (data, kind, members) in ENTRIES.items():
            entry = await anext(entries)
            assert (type(entry), entry.timestamp) == (kind, AT), name
            assert {each: getattr(entry, each) for each in members} == members, name
            assert entry.data == (data if kind is lms.LogEntry else {}), name
        await entries.aclose()
        assert (await received.get())["endpoint"] == "streamLogs"
        assert (await asyncio.wait_for(received.get(), 5))["message"] == {"type": "stop"}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_log_that_breaks_raises_an_error_after_its_entries(make_client: Callable[..., Any], name: str) -> None:
    frame, error = BROKEN[name]
    async with logging_server(packet(QUIET), frame) as (address, _), make_client(address) as client:
        entries = client.logs()
        assert (await anext(entries)).level == "debug"
        with pytest.raises(error):
            await anext(entries)


@pytest.mark.parametrize("timestamp", [AT, 0.5])
def test_an_entry_is_written_as_it_was_read(timestamp: float) -> None:
    for data, kind, _ in ENTRIES.values():
        if kind is not lms.LogEntry:
            entry = parse_entry({"timestamp": timestamp, "data": data})
            assert json.loads(entry.to_json()) == entry.to_dict() == {**data, "timestamp": timestamp}
            assert type(entry.to_dict()["timestamp"]) is type(timestamp)


async def test_the_error_of_a_time_that_is_none_is_whole(make_client: Callable[..., Any]) -> None:
    frame = packet(QUIET)
    frame["message"]["log"]["timestamp"] = "noon"
    async with logging_server(frame) as (address, _), make_client(address) as client:
        with pytest.raises(lms.LMStudioProtocolError) as caught:
            await anext(client.logs())
    problem, *remedy = str(caught.value).split("; ")
    assert "timestamp: Input should be a valid number" in problem
    assert remedy == ["update LM Studio and this package"]


async def test_a_log_ends_when_its_client_is_closed(make_client: Callable[..., Any]) -> None:
    async with logging_server() as (address, received), make_client(address) as client:
        reading = asyncio.ensure_future(next_of(client.logs()))
        await asyncio.wait_for(received.get(), 5)
        await client.aclose()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(reading, 5)


async def test_the_timeout_of_calls_does_not_end_a_log(make_client: Callable[..., Any]) -> None:
    async with logging_server(packet(QUIET)) as (address, received), make_client(address, timeout=1e-9) as client:
        entries = client.logs()
        await asyncio.wait_for(received.get(), 5)
        (connection,) = connections_to(address)
        await on_io_thread(connection._tick)
        await client.aclose()
        assert all([entry.content == "quiet" async for entry in entries])


async def test_a_prediction_is_logged(client: Any, server: Emulator) -> None:
    entries = client.logs()
    first = asyncio.ensure_future(next_of(entries))
    async with asyncio.timeout(5):
        while not first.done():  # no packet says that the log is open
            await client.system.get_version()
        await (await client.llm.model("chatty")).respond("Hi there")
        asked = await next_of_kind(entries, lms.ModelInputEntry)
        written = await next_of_kind(entries, lms.ModelOutputEntry)
    assert "Hi there" in asked.input
    assert asked.model_identifier == written.model_identifier == "chatty"
    assert written.stats
    assert written.stats.stop_reason == "eosFound"


EntryT = TypeVar("EntryT", bound=lms.LogEntry)


async def next_of_kind(entries: AsyncIterator[lms.LogEntry], kind: type[EntryT]) -> EntryT:
    while not isinstance(entry := await anext(entries), kind):
        pass
    return entry
