"""The prefixes of embedding models: before each text, and before each part of a text that is too long."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.storage.kvstore import SimpleKVStore

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioConfigWarning, LMStudioContextOverflowError
from lmstudio_integrations.langchain import LMStudioEmbeddings
from lmstudio_integrations.llama_index import LMStudioEmbedding

QUERY, DOCUMENT = "search_query: ", "search_document: "
LONG = "sun rain " * 60


def langchain(**settings: Any) -> LMStudioEmbeddings:
    return LMStudioEmbeddings(query_prefix=QUERY, document_prefix=DOCUMENT, **settings)


def llama_index(**settings: Any) -> LMStudioEmbedding:
    return LMStudioEmbedding(query_instruction=QUERY, text_instruction=DOCUMENT, **settings)


def cached(**settings: Any) -> LMStudioEmbedding:
    return llama_index(embeddings_cache=SimpleKVStore(), **settings)


Make = Callable[..., Any]
WAYS: dict[str, tuple[Make, str, str, list[str]]] = {
    "LangChain, query": (langchain, "embed_query", QUERY, []),
    "LangChain, documents": (langchain, "embed_documents", DOCUMENT, ["short"]),
    "LlamaIndex, query": (llama_index, "get_query_embedding", QUERY, []),
    "LlamaIndex, queries": (llama_index, "get_agg_embedding_from_queries", QUERY, ["short"]),
    "LlamaIndex, text": (llama_index, "get_text_embedding", DOCUMENT, []),
    "LlamaIndex, texts": (llama_index, "get_text_embedding_batch", DOCUMENT, ["short"]),
    "LlamaIndex, query, cached": (cached, "get_query_embedding", QUERY, []),
    "LlamaIndex, texts, cached": (cached, "get_text_embedding_batch", DOCUMENT, ["short"]),
}


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator([ModelEntry(key="vectors", kind="embedding", context_length=64, max_context_length=64)]) as running:
        yield running


@pytest.fixture(params=["sync", "async"])
def embed(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call a method of a model, sync or async."""

    def call(model: Any, method: str, given: Any) -> Any:
        if request.param == "sync":
            return getattr(model, method)(given)
        return asyncio.run(getattr(model, f"a{method}")(given))

    return call


@pytest.mark.parametrize(("make", "method", "prefix", "others"), WAYS.values(), ids=WAYS)
def test_every_part_of_a_long_text_has_the_prefix(
    server: Emulator, embed: Callable[..., Any], make: Make, method: str, prefix: str, others: list[str]
) -> None:
    model = make(model="vectors", host=server.address, length_policy="average")
    with pytest.warns(LMStudioConfigWarning, match="longer than the 64 tokens"):
        embed(model, method, [*others, LONG] if others else LONG)
    sent = [record.text for record in server.embedded_texts]
    assert {text[: len(prefix)] for text in sent} == {prefix}
    assert "".join(text[len(prefix) :] for text in sent) == "".join([*others, LONG])
    assert len(sent) == 2 + len(others), "the parts are as long as the prefix allows"


@pytest.mark.parametrize("make", [langchain, llama_index])
def test_a_truncated_text_leaves_room_for_its_prefix(server: Emulator, embed: Callable[..., Any], make: Make) -> None:
    model = make(model="vectors", host=server.address, length_policy="truncate")
    method = "embed_query" if make is langchain else "get_query_embedding"
    embed(model, method, LONG)
    (record,) = server.embedded_texts
    assert record.text.startswith(QUERY)
    with pytest.raises(LMStudioContextOverflowError, match=r"text 0 has \d+ tokens with its prefix"):
        embed(model.model_copy(update={"length_policy": "error"}), method, LONG)
