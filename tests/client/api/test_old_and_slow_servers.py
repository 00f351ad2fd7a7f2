"""What a client sends to servers that are old or slow, or that close a channel too early."""

import asyncio
from contextlib import closing

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.api.asynchronous import AsyncClient
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.emulator import Emulator
from tests.client.transcript_server import reading
from tests.protocol.transcripts import (
    AUTHENTICATION,
    COMPLETE_ON_AN_OLD_SERVER,
    LIST_LOAD_RESPOND_UNLOAD,
    lines_of,
)

LOADED = [*lines_of(AUTHENTICATION), *lines_of(LIST_LOAD_RESPOND_UNLOAD)[2:7]]
"""The frames of a client that connects and gets a model."""

PREDICT = lines_of(LIST_LOAD_RESPOND_UNLOAD)[7:13]
"""The frames of one prediction."""

CANCEL = """
> {"type":"channelSend","channelId":1,"message":{"type":"cancel"}}
"""


def test_a_server_without_raw_completion_gets_the_old_request() -> None:
    with reading([*LOADED, *lines_of(COMPLETE_ON_AN_OLD_SERVER)]) as host, Client(host) as client:
        assert client.llm.model("m1").complete("once upon").content == "Hello"


def test_a_prediction_that_closes_without_its_last_packet_is_an_error() -> None:
    with reading([*LOADED, *PREDICT[:-2], PREDICT[-1]]) as host, Client(host) as client:
        model = client.llm.model("m1")
        with pytest.raises(lms.LMStudioChannelClosedError, match="Chat response: the server closed the channel"):
            model.respond("hi")


def test_a_load_that_closes_without_its_last_packet_is_an_error() -> None:
    closed = pytest.raises(lms.LMStudioChannelClosedError, match="Model get/load: the server closed the channel")
    with reading([*LOADED[:-2], LOADED[-1]]) as host, Client(host) as client, closed:
        client.llm.model("m1")


def test_a_load_whose_caller_fails_is_cancelled_on_the_server() -> None:
    def fail(_progress: float) -> None:
        raise ZeroDivisionError

    failed = pytest.raises(ZeroDivisionError)
    with reading([*LOADED[:-3], *lines_of(CANCEL)]) as host, Client(host) as client, failed:
        client.llm.model("m1", on_load_progress=fail)


async def test_a_load_whose_task_is_cancelled_is_cancelled_on_the_server() -> None:
    with reading([*LOADED[:-3], *lines_of(CANCEL)]) as host:
        async with AsyncClient(host) as client:
            begun = asyncio.Event()
            load = asyncio.create_task(client.llm.model("m1", on_load_progress=lambda _progress: begun.set()))
            async with asyncio.timeout(600):
                await begun.wait()
            load.cancel()
            with pytest.raises(asyncio.CancelledError):
                await load


def test_a_socket_is_opened_when_its_namespace_is_first_used() -> None:
    with Emulator(["chatty"]) as server, closing(Client(server.address)) as client:
        assert not server.connections
        client.llm.list_loaded()
        client.llm.list_loaded()
        assert [connection.namespace for connection in server.connections] == ["llm"]
        client.llm.list_downloaded()
        assert {connection.namespace for connection in server.connections} == {"llm", "system"}


def test_a_client_without_a_token_is_the_same_guest_on_all_its_sockets() -> None:
    with Emulator(["chatty"]) as server, closing(Client(server.address)) as client:
        client.llm.list_loaded()
        client.embedding.list_loaded()
        names = {connection.client for connection in server.connections}
    assert len(names) == 1
    assert str(names.pop()).startswith("guest:")
