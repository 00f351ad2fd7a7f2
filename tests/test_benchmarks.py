"""Tests of the comparison of speed: its server sends the right tokens, and its page is made of the kept results."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

import lmstudio_integrations as lms
from benchmarks import waits
from benchmarks.page import REPORTS, Report
from benchmarks.server import Connection, tokens_of, vector
from lmstudio_integrations.emulator import Emulator, ModelEntry


@pytest.fixture
async def client() -> AsyncIterator[lms.AsyncClient]:
    """Our client, connected to the scripted server."""
    connections: list[Connection] = []

    def connected() -> Connection:
        connections.append(Connection())
        return connections[-1]

    async with await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0) as server:
        async with lms.AsyncClient(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as made:
            yield made
        for connection in connections:
            connection.close()
        await asyncio.sleep(0)  # the connections close in this turn


@pytest.mark.parametrize("name", ["burst-1", "burst-300"])
async def test_the_scripted_server_sends_all_tokens_of_a_model(client: lms.AsyncClient, name: str) -> None:
    model = await client.llm.model(name)
    fragments = [fragment.content async for fragment in model.respond_stream("Hi")]
    assert tuple(fragments) == tokens_of(name)


async def test_the_scripted_server_embeds(client: lms.AsyncClient) -> None:
    model = await client.embedding.model("vector")
    assert await model.embed(["one", "two"]) == [list(vector()), list(vector())]


@pytest.mark.parametrize("report", REPORTS, ids=[report.results.stem for report in REPORTS])
def test_the_pages_and_their_chart_are_made_of_the_kept_results(report: Report) -> None:
    for path in report.pages:
        page = path.read_text(encoding="utf-8")
        assert "<!-- begin " in page
        assert report.written(page) == page, "run python -m benchmarks.page"
    assert report.chart.read_text(encoding="utf-8").endswith(report.last_line()), "run python -m benchmarks.page"


@pytest.mark.parametrize("name", ["summarized", "hosts_2"])
def test_what_was_cached_is_set_against_what_could_have_been(name: str) -> None:
    case = waits.CASES[name]._replace(conversations=2)
    models = (ModelEntry(key="m", preload=True),)
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(Emulator(models)).address for _ in range(case.hosts)]
        measured = waits.measure(case, 4, hosts, "m")
    # A scripted model caches whole messages.
    assert 0.9 < measured.share <= 1
    # Which host had how many depends on how far the conversations overlapped.
    assert (sum(measured.places), len(measured.places)) == (8, case.hosts)
    assert [len(turn) for turn in measured.seconds] == [2] * 4
    assert waits.table({name: measured})
