"""Tests of the speed benchmark: the scripted server sends the right tokens, and proxies inject faults.

No test measures time.
"""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

import lmstudio_integrations as lms
from benchmarks.script import response_of, vector
from benchmarks.server.connection import Connection
from benchmarks.server.frames import TEXT, frame, received
from benchmarks.server.play import Cancellations
from benchmarks.soak_proxies import FAULTS, MisbehavingProxy
from tests.faults.proxy import ProxyThread


@pytest.fixture
def cancellations() -> Cancellations:
    """Records when clients cancel."""
    return Cancellations()


@pytest.fixture
async def client(cancellations: Cancellations) -> AsyncIterator[lms.AsyncClient]:
    """Our client, connected to the scripted server."""
    connections: list[Connection] = []

    def connected() -> Connection:
        connections.append(Connection(cancellations))
        return connections[-1]

    async with await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0) as server:
        async with lms.AsyncClient(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as made:
            yield made
        for connection in connections:
            connection.close()
        await asyncio.sleep(0)  # the connections close in this turn


@pytest.mark.parametrize("name", ["burst-1", "burst-300", "paced-5", "json-40"])
async def test_the_scripted_server_sends_all_tokens_of_a_model(client: lms.AsyncClient, name: str) -> None:
    model = await client.llm.model(name)
    fragments = [fragment.content async for fragment in model.respond_stream("Hi")]
    assert tuple(fragments) == response_of(name).tokens


async def test_the_scripted_server_embeds(client: lms.AsyncClient) -> None:
    model = await client.embedding.model("vector")
    assert await model.embed(["one", "two"]) == [list(vector()), list(vector())]


async def test_the_scripted_server_records_cancellations(client: lms.AsyncClient, cancellations: Cancellations) -> None:
    model = await client.llm.model("paced-2000")
    stream = model.respond_stream("Hi")
    await anext(stream)
    assert cancellations.pop() is None
    await stream.aclose()
    async with asyncio.timeout(5):
        while cancellations.pop() is None:
            await client.llm.list_loaded()  # a turn of the server


@pytest.mark.parametrize("size", [0, 125, 126, 65536])
def test_frames_are_read_from_chunks_of_any_size(size: int) -> None:
    masked = bytearray(frame(bytes(size)))
    masked[1] |= 0x80
    masked[len(masked) - size : len(masked) - size] = b"\0\0\0\0"
    buffer = masked[:-1]
    assert size == 0 or list(received(buffer)) == []
    buffer = bytearray(masked)
    assert list(received(buffer)) == [(TEXT, bytes(size))]
    assert not buffer


class LoadedDice(random.Random):
    """Always shows zero, which is below every probability."""

    def random(self) -> float:
        return 0.0


@pytest.mark.parametrize("point", FAULTS)
def test_the_proxies_of_the_soak_inject_faults(point: str) -> None:
    with ProxyThread() as thread, MisbehavingProxy(thread, "127.0.0.1:9", LoadedDice()) as proxy:
        assert proxy.consume(point) in FAULTS[point]
        assert proxy.consume("nowhere") is None
