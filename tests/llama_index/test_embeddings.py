"""`LMStudioEmbedding` on the emulator."""

import asyncio
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.rate_limiter import BaseRateLimiter
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.embeddings import Embedder
from lmstudio_integrations.emulator import ModelEntry
from lmstudio_integrations.errors import (
    LMStudioConfigWarning,
    LMStudioContextOverflowError,
    LMStudioProtocolError,
    LMStudioValueError,
)
from lmstudio_integrations.llama_index import LMStudioEmbedding, embeddings
from tests.llama_index.scripted_server import EMBEDDING, Server
from tests.support.tqdm_bars import Drawn

TEXTS = [f"text number {number}" for number in range(250)]


def is_vector(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 16 and all(type(number) is float for number in value)


def test_nodes_get_their_vectors(server: Server) -> None:
    with server.embedding() as model:
        (node,) = model([TextNode(text="rain")])
        assert is_vector(node.embedding)


async def test_two_models_share_a_cache_but_no_vectors() -> None:
    cache = SimpleKVStore()
    with Server([ModelEntry(key=key, kind="embedding") for key in ("a", "b")]) as server:
        for _ in range(2):
            for key in ("a", "b"):
                with server.embedding(model=key, embeddings_cache=cache) as model:
                    model.get_query_embedding("q")
                    await model.aget_query_embedding("q")
                    model.get_text_embedding("t")
                    model.get_text_embedding_batch(["t"])
                    await model.aget_text_embedding_batch(["t"])
        assert server.embedded == ["q", "t", "q", "t"]


class Permits(BaseRateLimiter):
    """Counts the permits that are taken."""

    def __init__(self) -> None:
        self.taken = 0

    def acquire(self, num_tokens: int = 0) -> None:
        self.taken += 1

    async def async_acquire(self, num_tokens: int = 0) -> None:
        self.taken += 1


async def test_vectors_of_the_cache_take_no_permit_of_a_rate_limiter(server: Server) -> None:
    permits = Permits()
    with server.embedding(embeddings_cache=SimpleKVStore(), rate_limiter=permits) as model:

        async def embed() -> list[Any]:
            return [
                model.get_query_embedding("q"),
                model.get_text_embedding("t"),
                await model.aget_query_embedding("q"),
                await model.aget_text_embedding("t"),
                await model.aget_text_embedding_batch(["t"] * 300),
            ]

        vectors = await embed()
        assert permits.taken == 2
        assert await embed() == vectors
        assert permits.taken == 2
    assert server.embedded == ["q", "t"]


async def test_every_call_is_one_span(server: Server, spans: list[str]) -> None:
    with server.embedding() as model:
        model.get_query_embedding("a")
        await model.aget_query_embedding("a")
        model.get_text_embedding("a")
        await model.aget_text_embedding("a")
        model.get_text_embedding_batch(["a"])
        await model.aget_text_embedding_batch(["a"])
    assert [name for name in spans if "._" not in name] == [
        "LMStudioEmbedding.get_query_embedding", "LMStudioEmbedding.aget_query_embedding",
        "LMStudioEmbedding.get_text_embedding", "LMStudioEmbedding.aget_text_embedding",
        "LMStudioEmbedding.get_text_embedding_batch", "LMStudioEmbedding.aget_text_embedding_batch",
    ]  # fmt: skip


@pytest.mark.parametrize("given", [{"show_progress": True}, {}])
async def test_show_progress_draws_bars_of_the_load_and_of_the_texts(
    server: Server, given: dict[str, Any], drawn: Drawn
) -> None:
    with server.embedding(show_progress=True) as model:
        vectors = model.get_text_embedding_batch(["a", "b"], **given)
        text = drawn()
        assert "Loading " in text
        assert "Generating embeddings: 100%" in text
        assert await model.aget_text_embedding_batch(["a", "b"], **given) == vectors
        assert "Generating embeddings: 100%" in drawn()
    with server.embedding() as model:
        assert model.get_text_embedding_batch(["a", "b"]) == vectors
        assert drawn() == ""


# One setting under two names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model", "model_name"])
def test_the_model_has_two_names(name: str) -> None:
    model = LMStudioEmbedding(**dict[str, Any]({name: "m"}))
    assert (model.model, model.model_name) == ("m", "m")
    setattr(model, name, "n")
    assert (model.model, model.model_name) == ("n", "n")
    setattr(model, name, None)
    assert (model.model, model.model_name) == (None, "unknown")


def test_the_two_names_must_agree() -> None:
    assert LMStudioEmbedding(model="m", model_name="m").model == "m"
    with pytest.raises(ValueError, match="are one setting"):
        LMStudioEmbedding(model="m", model_name="n")
    with pytest.raises(LMStudioValueError, match="are one setting"):
        LMStudioEmbedding().model_copy(update={"model": "m", "model_name": "n"})


def test_a_name_that_is_no_string_is_rejected() -> None:
    with pytest.raises(ValueError, match="valid string"):
        LMStudioEmbedding(**dict[str, Any](model=["m"]))


def test_without_a_name_any_loaded_model_responds(server: Server) -> None:
    server.load(EMBEDDING)
    with LMStudioEmbedding(host=server.address) as model:
        assert is_vector(model.get_query_embedding("a"))
        assert model.to_payload()["model_name"] == "unknown"


# Loading --------------------------------------------------------------------------------------------------------------


async def test_load_loads_and_reports_progress(server: Server) -> None:
    reported: list[float] = []
    with server.embedding(on_load_progress=reported.append, ttl=60, load_config={"contextLength": 512}) as model:
        assert model.load() is model
        assert await model.aload() is model
    assert (reported[0], reported[-1]) == (0.0, 1.0)
    (info,) = server.loaded()
    assert (info.identifier, info.ttl_ms, info.context_length) == (EMBEDDING, 60_000, 512)


# How much at once -----------------------------------------------------------------------------------------------------


class Counting:
    """Stands in for the model, and counts how many calls are under way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.under_way = self.most = 0
        self.lock = threading.Lock()
        self.full = threading.Barrier(embeddings.BATCHES_AT_ONCE)
        monkeypatch.setattr(Embedder, "request_vectors", lambda model, texts: self.request(model, texts))  # noqa: PLW0108 - as a method it would get the model as `self`

    def begin(self) -> None:
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)

    def end(self) -> None:
        with self.lock:
            self.under_way -= 1

    def request(self, model: Embedder, texts: list[str]) -> Flow[list[list[float]]]:
        self.begin()
        if model.context.new_mailbox().loop is None:
            self.full.wait(600)
        else:
            yield from model.context.run_task(self.turns_of_the_loop)
        self.end()
        return [[0.0] for _ in texts]

    async def turns_of_the_loop(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)


async def test_batches_without_workers_do_not_flood_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(monkeypatch)
    first, second = (LMStudioEmbedding(model="m", host="127.0.0.1:9", embed_batch_size=5) for _ in range(2))
    found = await asyncio.gather(first.aget_text_embedding_batch(TEXTS), second.aget_text_embedding_batch(TEXTS))
    assert [len(vectors) for vectors in found] == [len(TEXTS)] * 2
    assert counting.most == embeddings.BATCHES_AT_ONCE


def test_threads_do_not_flood_the_model_either(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(monkeypatch)
    models = [LMStudioEmbedding(model="m", host="127.0.0.1:9") for _ in range(3 * embeddings.BATCHES_AT_ONCE)]
    with ThreadPoolExecutor(len(models)) as pool:
        list(pool.map(lambda model: model.get_text_embedding("a"), models))
    assert counting.most == embeddings.BATCHES_AT_ONCE


# What can go wrong ----------------------------------------------------------------------------------------------------


def test_vectors_that_are_missing_are_not_passed_over(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def request(*_: object) -> Flow[list[list[float]]]:
        yield from ()
        return [[0.0]]

    monkeypatch.setattr(Embedder, "request_vectors", request)
    with server.embedding() as model, pytest.raises(LMStudioProtocolError, match="1 vectors for 2 texts"):
        model.get_text_embedding_batch(["a", "b"])


LONG = "word " * 600
"""Longer than the context length that the model is loaded with below."""


CACHES = {"uncached": lambda: None, "cached": SimpleKVStore}


@pytest.mark.parametrize("cache", CACHES.values(), ids=CACHES)
@pytest.mark.parametrize("workers", [None, 2])
async def test_the_error_of_a_long_text_has_its_place_in_the_whole_list(
    server: Server, cache: Callable[[], Any], workers: int | None
) -> None:
    texts = [*(f"short {number}" for number in range(7)), LONG, "the last"]
    settings: dict[str, Any] = {"embed_batch_size": 3, "num_workers": workers, "context_length": 512}
    settings["length_policy"] = "error"
    with server.embedding(**settings, embeddings_cache=cache(), text_instruction="document: ") as model:
        with pytest.raises(LMStudioContextOverflowError, match="text 7 has"):
            model.get_text_embedding_batch(texts)
        with pytest.raises(LMStudioContextOverflowError, match="text 7 has"):
            await model.aget_text_embedding_batch(texts)
        with pytest.raises(LMStudioContextOverflowError, match="text 7 has"):
            model([TextNode(text=text) for text in texts])
        with pytest.raises(LMStudioContextOverflowError, match="text 0 has"):
            model.get_text_embedding(LONG)


@pytest.mark.parametrize("use_async", [False, True])
def test_the_default_chunks_of_an_index_are_embedded_in_parts_and_the_advice_helps(
    monkeypatch: pytest.MonkeyPatch, use_async: bool
) -> None:
    monkeypatch.setattr(Settings, "_node_parser", None)
    monkeypatch.setattr(Settings, "_transformations", None)
    small = ModelEntry(key=EMBEDDING, kind="embedding", context_length=512, max_context_length=512)
    paragraphs = "\n\n\n".join(["rain and sun " * 20] * 20)
    documents = [Document(text="short"), Document(text=paragraphs), Document(text="short")]
    with Server([small]) as server, server.embedding() as model:
        with pytest.warns(LMStudioConfigWarning) as caught:
            VectorStoreIndex.from_documents(documents, embed_model=model, use_async=use_async)
        VectorStoreIndex.from_documents(documents, embed_model=model, use_async=use_async)
        (warning,) = caught
        assert warning.filename == __file__
        assert str(warning.message) == (
            f"some texts are longer than the 512 tokens that the model {EMBEDDING!r} takes; each of them gets the "
            "average of the vectors of its parts. For vectors of whole texts, lower Settings.chunk_size, or the node "
            "parser's chunk_size, below 512"
        )
        strict = server.embedding(length_policy="error")
        with pytest.raises(LMStudioContextOverflowError) as rejected:
            VectorStoreIndex.from_documents(documents, embed_model=strict, use_async=use_async)
        assert re.fullmatch(
            r"text 1 has \d+ tokens, and the model takes at most 512; "
            r"lower Settings.chunk_size, or the node parser's chunk_size, below 512, "
            r"or set length_policy='average' to embed it in parts, or 'truncate' to embed its beginning",
            str(rejected.value),
        )
        Settings.chunk_size = 256
        index = VectorStoreIndex.from_documents(documents, embed_model=strict, use_async=use_async)
        assert len(index.docstore.docs) > len(documents)
