"""The prefixes of embedding models: before each text, and before each part of a text that is too long."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.storage.kvstore import SimpleKVStore

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioConfigWarning, LMStudioContextOverflowError, LMStudioValueError
from lmstudio_integrations.langchain import LMStudioEmbeddings
from lmstudio_integrations.llama_index import LMStudioEmbedding
from lmstudio_integrations.types.embedding_prefixes import prefixes_of_family
from tests.client.both import sync_client
from tests.support.served import served

QUERY, DOCUMENT = "search_query: ", "search_document: "
LONG = "sun rain " * 60
RETRIEVE = "Instruct: Given a web search query, retrieve relevant passages that answer the query\n"
REPRESENT = "Represent this sentence for searching relevant passages: "


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

server = served(
    [ModelEntry(key="vectors", kind="embedding", context_length=64, max_context_length=64)], scope="function"
)


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


FAMILIES = [
    ("text-embedding-nomic-embed-text-v1.5", "search_query: ", "search_document: "),
    ("nomic-ai/nomic-embed-text-v2-moe", "search_query: ", "search_document: "),
    ("text-embedding-multilingual-e5-large", "query: ", "passage: "),
    ("e5-small-v2", "query: ", "passage: "),
    ("multilingual-e5-large-instruct", f"{RETRIEVE}Query: ", ""),
    ("gte-Qwen2-1.5B-instruct", f"{RETRIEVE}Query: ", ""),
    ("text-embedding-qwen3-embedding-0.6b", f"{RETRIEVE}Query:", ""),
    ("bge-small-en-v1.5", REPRESENT, ""),
    ("text-embedding-mxbai-embed-large-v1", REPRESENT, ""),
    ("snowflake-arctic-embed-m-v1.5", REPRESENT, ""),
    ("text-embedding-snowflake-arctic-embed-l-v2.0", "query: ", ""),
    ("text-embedding-embeddinggemma-300m", "task: search result | query: ", "title: none | text: "),
    *((key, "", "") for key in ("bge-m3", "text-embedding-all-minilm-l6-v2", "gte-large", "paste5-large", None)),
]


@pytest.mark.parametrize(("key", "query", "document"), FAMILIES)
def test_models_of_known_families_have_the_prefixes_of_their_cards(key: str | None, query: str, document: str) -> None:
    assert prefixes_of_family(key) == (query, document)
    for model in (LMStudioEmbeddings(model=key), LMStudioEmbedding(model=key)):
        assert model.prefixes == (query, document)
    assert LMStudioEmbeddings(model=key, query_prefix="").prefixes == ("", document)
    assert LMStudioEmbedding(model=key, text_instruction="x ").prefixes == (query, "x ")


NOMIC = "text-embedding-nomic-embed-text-v1.5"


@pytest.mark.parametrize(
    ("method", "of_framework", "prefix"),
    [
        ("embed_query", LMStudioEmbeddings, QUERY),
        ("embed_documents", LMStudioEmbeddings, DOCUMENT),
        ("get_query_embedding", LMStudioEmbedding, QUERY),
        ("get_text_embedding", LMStudioEmbedding, DOCUMENT),
        ("get_text_embedding_batch", LMStudioEmbedding, DOCUMENT),
    ],
)
def test_the_prefixes_of_a_family_are_used_unless_they_are_switched_off(
    embed: Callable[..., Any], method: str, of_framework: Any, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lmstudio_integrations.types.embedding_prefixes")
    prefixes_of_family.cache_clear()
    given = ["sun"] if method in {"embed_documents", "get_text_embedding_batch"} else "sun"
    off = dict.fromkeys(of_framework._prefix_fields, "")
    with Emulator([ModelEntry(key=NOMIC, kind="embedding")]) as server:
        for settings in ({}, {}, off):
            embed(of_framework(model=NOMIC, host=server.address, **settings), method, given)
        assert [record.text for record in server.embedded_texts] == [f"{prefix}sun", f"{prefix}sun", "sun"]
    (line,) = caplog.messages
    assert line.startswith(f"{NOMIC!r}: queries get the prefix {QUERY!r} and documents {DOCUMENT!r}")


@pytest.mark.parametrize(("purpose", "prefix"), [("query", QUERY), ("document", DOCUMENT), (None, "")])
@pytest.mark.parametrize("make_client", [sync_client, lms.AsyncClient])
@pytest.mark.parametrize("given", ["sun", ["sun"]], ids=["text", "texts"])
async def test_the_native_client_takes_a_purpose(make_client: Any, purpose: Any, prefix: str, given: Any) -> None:
    """Without one, it sends what the official SDK sends."""
    with Emulator([ModelEntry(key=NOMIC, kind="embedding")]) as server:
        async with make_client(server.address) as client:
            model = await client.embedding.model(NOMIC)
            await model.embed(given, purpose=purpose)
            with pytest.raises(LMStudioValueError, match="purpose must be 'query' or 'document', or None; got 'passa"):
                await model.embed(given, purpose="passage")
        assert [record.text for record in server.embedded_texts] == [f"{prefix}sun"]


# Dimensions -----------------------------------------------------------------------------------------------------------

SHORTENED: list[tuple[Any, str]] = [(LMStudioEmbeddings, "embed_query"), (LMStudioEmbeddings, "embed_documents")]
SHORTENED += [(LMStudioEmbedding, f"get_{name}") for name in ("query_embedding", "text_embedding")]
SHORTENED += [(LMStudioEmbedding, f"get_{name}") for name in ("text_embedding_batch", "agg_embedding_from_queries")]


@pytest.mark.parametrize(("make", "method"), SHORTENED)
def test_shorter_vectors_are_the_beginning_of_long_ones_with_length_one(
    embed: Callable[..., Any], make: Any, method: str
) -> None:
    is_list = method in {"embed_documents", "get_text_embedding_batch", "get_agg_embedding_from_queries"}
    many = method in {"embed_documents", "get_text_embedding_batch"}
    given: Any = ["one two three four five"] if is_list else "one two three four five"
    with Emulator([ModelEntry(key="vectors", kind="embedding", embedding_length=16)]) as server:
        model = make(model="vectors", host=server.address)
        long, short = (
            embed(each, method, given)[0] if many else embed(each, method, given)
            for each in (model, model.model_copy(update={"dimensions": 8}))
        )
        assert (len(long), len(short)) == (16, 8)
        length = math.hypot(*long[:8])
        assert short == pytest.approx([number / length for number in long[:8]])
        with pytest.raises(LMStudioValueError, match="dimensions=17, but the model's vectors have 16 numbers"):
            embed(make(model="vectors", host=server.address, dimensions=17), method, given)


def test_a_cache_tells_vectors_of_other_dimensions_apart(embed: Callable[..., Any]) -> None:
    cache = SimpleKVStore()
    with Emulator([ModelEntry(key="vectors", kind="embedding", embedding_length=16)]) as server:
        for dimensions, length in ((None, 16), (8, 8), (None, 16)):
            model = LMStudioEmbedding(
                model="vectors", host=server.address, embeddings_cache=cache, dimensions=dimensions
            )
            assert len(embed(model, "get_text_embedding", "one two")) == length
        assert [record.text for record in server.embedded_texts] == ["one two"] * 2
