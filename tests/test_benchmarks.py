"""Tests of the speed benchmark: the scripted server sends the right tokens, and the table renders them.

No test measures time.
"""

import asyncio
import math
import random
from collections.abc import AsyncIterator

import pytest

import lmstudio_integrations as lms
from tests.benchmarks.rows import OURS, PROGRAMS, ROWS, Row
from tests.benchmarks.script import response_of, vector
from tests.benchmarks.server.connection import Connection
from tests.benchmarks.server.frames import TEXT, frame, received
from tests.benchmarks.server.play import Cancellations
from tests.benchmarks.soak_proxies import FAULTS, MisbehavingProxy
from tests.benchmarks.table import Measurements, render
from tests.faults.proxy import ProxyThread

ROW = Row("native", "stream", "stream", "µs", 7, {"floor": 5, "peer": 80})


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


def test_every_row_has_a_program() -> None:
    for row in ROWS:
        roles = {OURS, *(name.partition(" (")[0] for name in row.known)}
        assert row.group == "imports" or roles <= PROGRAMS[row.group].keys()


def test_a_target_is_reached_where_it_grows_with_the_machine() -> None:
    measurements: Measurements = {
        ("native", "stream", "floor"): [10.0, 11.0, 900.0],
        ("native", "stream", "peer"): [176.0],
        ("native", "stream", OURS): [15.0],
    }
    table = render([ROW], measurements, 3)
    assert "took 2.20 times the CPU" in table
    assert "| native: stream | µs | 11.0 | 15.0 | peer 176 | ≤ 7.00 | 15.4 | yes |" in table
    assert "| no |" in render([ROW], {**measurements, ("native", "stream", OURS): [16.0]}, 3)


def test_missing_measurements_and_infinite_ones_are_shown() -> None:
    cancel = Row("native", "cancelled", "cancel", "ms", 1, scales=False)
    table = render([cancel], {("native", "cancel", "peer"): [math.inf]}, 1)
    assert "| native: cancelled | ms | - | - | peer never | ≤ 1.00 | 1.00 | - |" in table


def test_a_ratio_is_compared_with_the_floor() -> None:
    row = Row("native", "long", "long", "times", None, over="stream", scales=False)
    measurements: Measurements = {
        ("native", "stream", "floor"): [5.0],
        ("native", "long", "floor"): [6.0],
        ("native", "stream", OURS): [10.0],
        ("native", "long", OURS): [13.0],
    }
    assert "| 1.20 | 1.30 | - | the floor's | 1.20 | no |" in render([row], measurements, 1)


class LoadedDice(random.Random):
    """Always shows zero, which is below every probability."""

    def random(self) -> float:
        return 0.0


@pytest.mark.parametrize("point", FAULTS)
def test_the_proxies_of_the_soak_inject_faults(point: str) -> None:
    with ProxyThread() as thread, MisbehavingProxy(thread, "127.0.0.1:9", LoadedDice()) as proxy:
        assert proxy.consume(point) in FAULTS[point]
        assert proxy.consume("nowhere") is None
