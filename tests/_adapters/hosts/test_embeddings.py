"""Many texts on several hosts: each host embeds batches, and every text is embedded."""

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.stores import InMemoryByteStore
from llama_index.core.storage.kvstore import SimpleKVStore

from lmstudio_integrations import AsyncClient
from lmstudio_integrations.client.api.base import handle_on_hosts
from lmstudio_integrations.client.transport.operation import MAX_IN_FLIGHT
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.errors import (
    LMStudioConfigMismatchError,
    LMStudioConfigWarning,
    LMStudioConnectionLostError,
    LMStudioServerError,
    LMStudioUnreachableError,
)
from tests._adapters.hosts.servers import EMBEDDING, addresses, embedding_model, servers
from tests.support.adapters import ADAPTERS
from tests.support.ports import free_port
from tests.support.tqdm_bars import Drawn

pytestmark = pytest.mark.leaf("hosts")

TEXTS = [f"text {number}" for number in range(400)]
SECONDS = 600.0

both_frameworks = pytest.mark.parametrize(
    ("name", "path"), [("LMStudioEmbeddings", "async"), ("LMStudioEmbedding", "sync")]
)


@pytest.fixture
def pair() -> Iterator[list[Emulator]]:
    models = (embedding_model(preload=True),)
    with servers(models, models) as emulators:
        yield emulators


@pytest.mark.slow
@both_frameworks
def test_each_of_many_texts_is_embedded_once_and_every_host_takes_part(
    name: str, path: str, pair: list[Emulator]
) -> None:
    several = vectors(name, path, TEXTS, addresses(pair))
    texts = [each.text for server in pair for each in server.embedded_texts]
    assert sorted(texts) == sorted(TEXTS)
    assert all(server.embedded_texts for server in pair)
    assert several == vectors(name, path, TEXTS, pair[0].address)


def vectors(
    name: str, path: str, texts: list[str], host: str | list[str], length_policy: str = "error"
) -> list[list[float]]:
    settings: dict[str, Any] = {"on_config_mismatch": "ignore", "length_policy": length_policy}
    return embedded(ADAPTERS[name].make(model=EMBEDDING, host=host, **settings), name, path, texts)


def embedded(model: Any, name: str, path: str, texts: list[str]) -> list[list[float]]:
    if name == "LMStudioEmbedding":
        model.embed_batch_size = 150
        if path == "sync":
            return model.get_text_embedding_batch(texts)  # type: ignore[no-any-return]
        return asyncio.run(model.aget_text_embedding_batch(texts))
    return model.embed_documents(texts) if path == "sync" else asyncio.run(model.aembed_documents(texts))


@pytest.mark.slow
@both_frameworks
def test_all_hosts_split_long_texts_by_the_smallest_context_window(name: str, path: str) -> None:
    small, large = (embedding_model(preload=True, context_length=length) for length in (64, 128))
    texts = [f"text {number} " * 80 for number in range(100)]
    with servers((large,), (small,)) as pair:
        with pytest.warns(LMStudioConfigWarning, match="longer than the 64 tokens"):
            several = vectors(name, path, texts, addresses(pair), "average")
        assert all(server.embedded_texts for server in pair)
        assert several == vectors(name, path, texts, pair[1].address, "average")


@pytest.mark.parametrize("path", ["sync", "async"])
@pytest.mark.parametrize("name", ["LMStudioEmbeddings", "LMStudioEmbedding"])
def test_vectors_of_a_cache_and_of_hosts_keep_the_order_of_the_texts(name: str, path: str) -> None:
    texts = [f"text {number % 14}" for number in range(20)]  # six of them twice
    with servers(*[(embedding_model(preload=True),)] * 3) as emulators:
        expected = vectors(name, path, texts, emulators[0].address)
        model = ADAPTERS[name].make(model=EMBEDDING, host=addresses(emulators))
        if name == "LMStudioEmbedding":
            model.embeddings_cache = SimpleKVStore()
        else:
            model = CacheBackedEmbeddings.from_bytes_store(model, InMemoryByteStore(), key_encoder="sha256")
        assert embedded(model, name, path, texts[1::2]) == expected[1::2]
        before = [len(server.embedded_texts) for server in emulators]
        assert embedded(model, name, path, texts) == expected
        new = {each.text for server, at in zip(emulators, before, strict=True) for each in server.embedded_texts[at:]}
        assert new == {*texts} - {*texts[1::2]}


@pytest.mark.slow
@both_frameworks
def test_a_host_that_is_lost_costs_no_text(name: str, path: str, pair: list[Emulator]) -> None:
    expected = vectors(name, path, TEXTS, pair[1].address)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(vectors, name, path, TEXTS, addresses(pair))
        pair[0].wait_for(lambda: len(pair[0].embedded_texts) > 50, SECONDS)
        pair[0].stop()
        assert running.result(SECONDS) == expected


@pytest.mark.slow
@both_frameworks
def test_all_hosts_lost_is_one_error(name: str, path: str, pair: list[Emulator]) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(vectors, name, path, TEXTS * 20, addresses(pair))
        pair[0].wait_for(lambda: len(pair[0].embedded_texts) > 50, SECONDS)
        for server in pair:
            server.stop()
        with pytest.raises((LMStudioConnectionLostError, LMStudioUnreachableError)):
            running.result(SECONDS)


@both_frameworks
def test_the_first_error_of_a_text_ends_the_call(name: str, path: str) -> None:
    models = (embedding_model(preload=True, context_length=64, max_context_length=64),)
    texts = [*TEXTS[:200], "word " * 100]
    with servers(models, models) as pair, pytest.raises(LMStudioServerError, match="text 200 has 103 tokens"):
        vectors(name, path, texts, addresses(pair))


@pytest.mark.slow
@both_frameworks
def test_vectors_of_two_lengths_are_never_returned(name: str, path: str) -> None:
    models = [(embedding_model(preload=True, embedding_length=length),) for length in (8, 16)]
    with servers(*models) as (first, second):
        hosts = addresses([first, second])
        model = ADAPTERS[name].make(model=EMBEDDING, host=hosts, on_config_mismatch="ignore")
        with pytest.raises(LMStudioConfigMismatchError) as caught:
            embedded(model, name, path, TEXTS)
        assert f"dimensions ({hosts[0]}: 8, {hosts[1]}: 16)" in str(caught.value)
        assert "on_config_mismatch" not in str(caught.value)
        assert [status.dimensions for status in model.hosts()] == [8, 16]
        with pytest.raises(LMStudioConfigMismatchError):  # or the next call returned what fits no earlier vector
            embedded(model, name, path, TEXTS[:1])
        port = second.port
        second.stop()
        with Emulator(models[0], port=port):
            assert [status.dimensions for status in model.hosts()] == [8, None]
            assert {len(vector) for vector in embedded(model, name, path, TEXTS)} == {8}


def test_a_host_that_loads_another_model_meanwhile_ends_the_call(
    pair: list[Emulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    later = {*TEXTS[2 * MAX_IN_FLIGHT :]}
    monkeypatch.setattr(words, "embed", lambda text, length: [1.0] * (length + (text in later)))
    model = ADAPTERS["LMStudioEmbeddings"].make(model=EMBEDDING, host=[pair[0].address, f"127.0.0.1:{free_port()}"])
    with pytest.raises(LMStudioConfigMismatchError, match="vectors of 8 and 9 numbers"):
        model.embed_documents(TEXTS[:250])


async def test_handles_to_several_hosts_compare_the_lengths_of_vectors() -> None:
    models = [(embedding_model(preload=True, embedding_length=length),) for length in (8, 16)]
    with servers(*models) as both:
        clients = [AsyncClient(address) for address in addresses(both)]
        handles = [client.embedding.lazy_model(EMBEDDING) for client in clients]
        handle: Any = handle_on_hosts(handles, 0)
        calls = (handle.embed(text) for text in TEXTS[:8])
        results: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
        errors = [each for each in results if isinstance(each, LMStudioConfigMismatchError)]
        assert len({len(each) for each in results if each not in errors}) == 1
        assert errors


async def test_cancelling_the_task_frees_the_slots(pair: list[Emulator]) -> None:
    model = ADAPTERS["LMStudioEmbeddings"].make(model=EMBEDDING, host=addresses(pair))
    task = asyncio.create_task(model.aembed_documents(TEXTS * 20))
    await asyncio.to_thread(pair[0].wait_for, lambda: len(pair[0].embedded_texts) > 50, SECONDS)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert [status.in_flight for status in await model.ahosts()] == [0, 0]


def test_a_progress_bar_counts_the_texts_of_all_hosts(pair: list[Emulator], drawn: Drawn) -> None:
    model = ADAPTERS["LMStudioEmbeddings"].make(model=EMBEDDING, host=addresses(pair), show_progress=True)
    model.embed_documents(TEXTS[:100])
    bars = drawn()
    assert "Embedding 100 texts" in bars
    assert "100%" in bars
