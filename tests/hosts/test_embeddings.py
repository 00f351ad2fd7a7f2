"""Many texts on several hosts: each host embeds batches, and every text is embedded."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import LMStudioConnectionLostError, LMStudioServerError, LMStudioUnreachableError
from tests.adapters import ADAPTERS
from tests.hosts.servers import EMBEDDING, addresses, embedding_model, servers
from tests.tqdm_bars import Drawn

TEXTS = [f"text {number}" for number in range(1000)]
SECONDS = 20.0

both_frameworks = pytest.mark.parametrize("name", ["LMStudioEmbeddings", "LMStudioEmbedding"])
both_paths = pytest.mark.parametrize("path", ["sync", "async"])


@pytest.fixture
def pair() -> Iterator[list[Emulator]]:
    models = (embedding_model(preload=True),)
    with servers(models, models) as emulators:
        yield emulators


@pytest.mark.parametrize("name", ["LMStudioEmbeddings", "LMStudioEmbedding"])
@both_paths
def test_each_of_many_texts_is_embedded_once_and_every_host_takes_part(
    name: str, path: str, pair: list[Emulator]
) -> None:
    texts = [f"text {number}" for number in range(500)]
    several = vectors(name, path, texts, addresses(pair))
    embedded = [each.text for server in pair for each in server.embedded_texts]
    assert sorted(embedded) == sorted(texts)
    assert all(server.embedded_texts for server in pair)
    assert several == vectors(name, path, texts, pair[0].address)


def vectors(name: str, path: str, texts: list[str], host: str | list[str]) -> list[list[float]]:
    model = ADAPTERS[name].make(model=EMBEDDING, host=host)
    if name == "LMStudioEmbedding":
        model.embed_batch_size = 300
        if path == "sync":
            return model.get_text_embedding_batch(texts)  # type: ignore[no-any-return]
        return asyncio.run(model.aget_text_embedding_batch(texts))
    return model.embed_documents(texts) if path == "sync" else asyncio.run(model.aembed_documents(texts))


@both_frameworks
@both_paths
def test_a_host_that_is_lost_costs_no_text(name: str, path: str, pair: list[Emulator]) -> None:
    expected = vectors(name, path, TEXTS, pair[1].address)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(vectors, name, path, TEXTS, addresses(pair))
        pair[0].wait_for(lambda: len(pair[0].embedded_texts) > 50, SECONDS)
        pair[0].stop()
        assert running.result(SECONDS) == expected


@both_frameworks
@both_paths
def test_all_hosts_lost_is_one_error(name: str, path: str, pair: list[Emulator]) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(vectors, name, path, TEXTS * 10, addresses(pair))
        pair[0].wait_for(lambda: len(pair[0].embedded_texts) > 50, SECONDS)
        for server in pair:
            server.stop()
        with pytest.raises((LMStudioConnectionLostError, LMStudioUnreachableError)):
            running.result(SECONDS)


@both_frameworks
@both_paths
def test_the_first_error_of_a_text_ends_the_call(name: str, path: str) -> None:
    models = (embedding_model(preload=True, context_length=64, max_context_length=64),)
    texts = [*TEXTS[:200], "word " * 100]
    with servers(models, models) as pair, pytest.raises(LMStudioServerError, match="text 200 has 103 tokens"):
        vectors(name, path, texts, addresses(pair))


async def test_cancelling_the_task_frees_the_slots(pair: list[Emulator]) -> None:
    model = ADAPTERS["LMStudioEmbeddings"].make(model=EMBEDDING, host=addresses(pair))
    task = asyncio.create_task(model.aembed_documents(TEXTS * 20))
    await asyncio.to_thread(pair[0].wait_for, lambda: len(pair[0].embedded_texts) > 50, SECONDS)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert [status.in_flight for status in await model.ahosts()] == [0, 0]


def test_the_progress_of_a_load_is_reported_to_the_caller() -> None:
    models = (embedding_model(),)
    threads: set[threading.Thread] = set()
    with servers(models, models) as pair:
        model = ADAPTERS["LMStudioEmbeddings"].make(
            model=EMBEDDING, host=addresses(pair), on_load_progress=lambda _: threads.add(threading.current_thread())
        )
        assert len(model.embed_documents(TEXTS)) == len(TEXTS)
    assert threads == {threading.current_thread()}


def test_a_progress_bar_counts_the_texts_of_all_hosts(pair: list[Emulator], drawn: Drawn) -> None:
    model = ADAPTERS["LMStudioEmbeddings"].make(model=EMBEDDING, host=addresses(pair), show_progress=True)
    model.embed_documents(TEXTS[:100])
    bars = drawn()
    assert "Embedding 100 texts" in bars
    assert "100%" in bars
