"""Tests of the comparison of speed: its server sends the right tokens, and its page is made of the kept results."""

import asyncio
from collections.abc import AsyncIterator

import pytest

import lmstudio_integrations as lms
from benchmarks.page import REPORTS, Report
from benchmarks.server import Connection, tokens_of, vector


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
