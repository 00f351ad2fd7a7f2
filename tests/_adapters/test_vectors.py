"""Vectors of many texts, of which one fails: an error and no shifted vectors, in both frameworks and their caches."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.stores import InMemoryStore
from llama_index.core.storage.kvstore import SimpleKVStore

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.langchain import LMStudioEmbeddings
from lmstudio_integrations.llama_index import LMStudioEmbedding

TEXTS = [f"text {number}" for number in range(50)]
WRONG = TEXTS[25]

Embed = Callable[[list[str]], list[list[float]]]


def _native(address: str) -> Embed:
    def embed(texts: list[str]) -> list[list[float]]:
        with lms.Client(address) as client:
            return client.embedding.model("vectors").embed(texts)

    return embed


def _langchain(address: str) -> Embed:
    return LMStudioEmbeddings(model="vectors", host=address).embed_documents


def _langchain_async(address: str) -> Embed:
    model = LMStudioEmbeddings(model="vectors", host=address)
    return lambda texts: asyncio.run(model.aembed_documents(texts))


def _langchain_cached(address: str) -> Embed:
    model = LMStudioEmbeddings(model="vectors", host=address)
    store = InMemoryStore()
    cached = CacheBackedEmbeddings.from_bytes_store(model, store, namespace="v", key_encoder="sha256")
    return cached.embed_documents


def _llama_index(address: str, **settings: Any) -> Embed:
    return LMStudioEmbedding(model="vectors", host=address, **settings).get_text_embedding_batch


def _llama_index_cached(address: str) -> Embed:
    return _llama_index(address, embeddings_cache=SimpleKVStore())


def _llama_index_at_once(address: str) -> Embed:
    model = LMStudioEmbedding(model="vectors", host=address, num_workers=4)
    return lambda texts: asyncio.run(model.aget_text_embedding_batch(texts))


WAYS = [
    _native,
    _langchain,
    _langchain_async,
    _langchain_cached,
    _llama_index,
    _llama_index_cached,
    _llama_index_at_once,
]


@pytest.mark.parametrize("way", WAYS)
def test_a_number_that_is_none_is_an_error_that_names_its_text_and_nothing_is_shifted(
    way: Callable[[str], Embed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server writes `null` for it."""
    right = words.embed

    def wrong(text: str, length: int) -> list[float]:
        return [math.nan if text == WRONG else number for number in right(text, length)]

    with Emulator([{"key": "vectors", "kind": "embedding"}]) as server:
        embed = way(server.address)
        with monkeypatch.context() as patch:
            patch.setattr(words, "embed", wrong)
            with pytest.raises(lms.LMStudioProtocolError, match=f"no list of finite numbers for the text '{WRONG}'"):
                embed(TEXTS)
        vectors = embed([*TEXTS[:30], *TEXTS[:2]])
    assert vectors == [pytest.approx(right(text, len(vectors[0]))) for text in (*TEXTS[:30], *TEXTS[:2])]
