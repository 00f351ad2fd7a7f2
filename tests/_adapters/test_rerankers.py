"""The rerankers of both frameworks, sync and async: what they return and report, and what they do under faults."""

import asyncio
import copy
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.exceptions import ModelError
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import Document as NodeDocument
from llama_index.core import VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import (
    LMStudioConfigWarning,
    LMStudioError,
    LMStudioUnreachableError,
    LMStudioUnsupportedError,
    LMStudioValueError,
)
from lmstudio_integrations.langchain import LMStudioEmbeddings
from lmstudio_integrations.langchain import LMStudioReranker as LangChainReranker
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from lmstudio_integrations.llama_index import LMStudioReranker as LlamaIndexReranker
from lmstudio_integrations.types.reranking import RerankTemplate
from tests.llama_index.conftest import Listener, listener
from tests.support.gate import AT_THE_GATE, Gate
from tests.support.served import served

__all__ = ["listener"]

QUERY = "What does a swim cost?"
TEXTS = ["train", "pool", "ferry", "broken"]
RULES = (
    {"when": {"last": "(^|\n)pool"}, "then": [{"relevance": 0.9}]},
    {"when": {"last": "^ferry"}, "then": [{"relevance": 0.4}]},
    {"when": {"last": "^broken"}, "then": [{"error": "the engine gave up"}]},
)


def entry(**fields: Any) -> ModelEntry:
    return ModelEntry(**{"key": "chat", "rules": RULES, "slots": 2, **fields})


server = served([entry(), ModelEntry(key="vectors", kind="embedding")], scope="function")


@dataclass(frozen=True)
class Surface:
    """A reranker of a framework, sync or async."""

    make: Any
    is_async: bool

    def rerank(self, model: Any, texts: list[str]) -> list[tuple[str, float | None]]:
        """Return texts and their scores, as the framework has them."""
        given: Any
        if self.make is LangChainReranker:
            documents = [Document(text, metadata={"at": at}) for at, text in enumerate(texts)]
            acall, call, given = model.acompress_documents, model.compress_documents, (documents, QUERY)
        else:
            nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in texts]
            acall, call, given = model.apostprocess_nodes, model.postprocess_nodes, (nodes, QueryBundle(QUERY))
        found = asyncio.run(acall(*given)) if self.is_async else call(*given)
        if self.make is LangChainReranker:
            assert all(texts[each.metadata["at"]] == each.page_content for each in found)
            assert all("relevance_score" not in each.metadata for each in given[0])
            return [(each.page_content, _rounded(each.metadata["relevance_score"])) for each in found]
        assert all(each.score == 0.5 for each in given[0])
        return [(each.node.get_content(), _rounded(each.score)) for each in found]

    def __str__(self) -> str:
        return f"{self.make.__module__.split('.')[1]} {'async' if self.is_async else 'sync'}"


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)


SURFACES = [Surface(make, is_async) for make in (LangChainReranker, LlamaIndexReranker) for is_async in (False, True)]
some_surfaces = pytest.mark.parametrize("surface", [SURFACES[0], SURFACES[3]], ids=str)
every_surface = pytest.mark.parametrize("surface", SURFACES, ids=str)


@every_surface
def test_texts_come_back_best_first(surface: Surface, server: Emulator) -> None:
    model = surface.make(model="chat", host=server.address)
    expected = [("pool", 0.9), ("ferry", 0.4), ("train", 0.01)]
    for each in (model, copy.copy(model), pickle.loads(pickle.dumps(model))):
        assert surface.rerank(each, TEXTS[:3]) == expected
    assert surface.rerank(model.model_copy(update={"top_n": 1}), TEXTS[:3]) == expected[:1]
    assert surface.rerank(model, []) == []
    assert [(load.key, load.mode) for load in server.loads] == [("chat", "explicit")]


@every_surface
def test_settings_reach_the_prompt(surface: Surface, server: Emulator) -> None:
    template = RerankTemplate("{instruction} {query}\n\nText: {text}", yes="1", no="0")
    for settings in ({"instruction": "Find prices"}, {"template": template}, {"template": template.prompt}):
        surface.rerank(surface.make(model="chat", host=server.address, **settings), ["pool"])
    prompts = list(dict.fromkeys(str(each.prompt) for each in server.predictions))
    assert "Find prices.\n\nQuery: What does" in prompts[0]
    assert prompts[1:] == [f"{template.instruction} {QUERY}\n\nText: pool"]


@every_surface
def test_after_the_first_as_many_texts_are_sent_as_the_model_has_slots(surface: Surface, gate: Gate) -> None:
    relevance = {"relevance": 0.5}
    rules = ({"when": {"last": "^train"}, "then": [relevance]}, {"then": [AT_THE_GATE, relevance]})
    with ThreadPoolExecutor(1) as pool, Emulator([entry(rules=rules)], engines=gate.engines()) as server:
        ranked = pool.submit(surface.rerank, surface.make(model="chat", host=server.address), TEXTS)
        server.wait_for(lambda: [each.state for each in server.predictions] == ["ended", "running", "running"])
        gate.open()
        assert ranked.result() == [(text, 0.5) for text in TEXTS]


@every_surface
def test_a_text_that_fails_raises_or_is_marked(surface: Surface, server: Emulator) -> None:
    model = surface.make(model="chat", host=server.address)
    expected = ModelError if surface.make is LangChainReranker else LMStudioError
    with pytest.raises(expected, match="the engine gave up") as caught:
        surface.rerank(model, TEXTS)
    assert isinstance(caught.value, LMStudioError)
    model.errors = "mark"
    assert surface.rerank(model, TEXTS) == [("pool", 0.9), ("ferry", 0.4), ("train", 0.01), ("broken", None)]


@every_surface
@pytest.mark.parametrize(("given", "text"), [("pool", "'pool'"), (None, "…")])
def test_what_is_no_document_is_an_error_that_says_what_to_write(
    surface: Surface, server: Emulator, given: Any, text: str
) -> None:
    is_langchain = surface.make is LangChainReranker
    name, query = ("compress_documents", QUERY) if is_langchain else ("postprocess_nodes", QueryBundle(QUERY))
    call = getattr(surface.make(model="chat", host=server.address), f"a{name}" if surface.is_async else name)
    with pytest.raises(LMStudioValueError, match=f"got {given!r} at index 0; write (Document|NodeWith).*{text}"):
        asyncio.run(call([given], query)) if surface.is_async else call([given], query)
    assert not server.predictions


@some_surfaces
def test_missing_servers_and_models_that_cannot_have_their_errors(surface: Surface, server: Emulator) -> None:
    with pytest.raises(LMStudioUnreachableError):
        surface.rerank(surface.make(model="chat", host="127.0.0.1:9"), ["pool"])
    with pytest.raises(LMStudioUnsupportedError, match="cross-encoder"):
        surface.rerank(surface.make(model="bge-reranker-v2-m3", host=server.address), ["pool"])


@some_surfaces
def test_a_text_that_is_cut_is_reported_once(surface: Surface) -> None:
    with Emulator([entry(context_length=200)]) as server:
        model = surface.make(model="chat", host=server.address)
        with pytest.warns(LMStudioConfigWarning, match="only their beginning was scored"):
            surface.rerank(model, ["pool " * 500, "ferry"])
        surface.rerank(model, ["pool " * 500, "ferry"])  # a second warning would be an error


@pytest.mark.parametrize(("threshold", "kept"), [(0.4, 2), (0.5, 1), (1.0, 0), (0.0, 3)])
def test_a_threshold_drops_what_has_less_or_no_score(server: Emulator, threshold: float, kept: int) -> None:
    model = LangChainReranker(model="chat", host=server.address, score_threshold=threshold, errors="mark")
    assert len(model.compress_documents([Document(text) for text in TEXTS], QUERY)) == kept


async def test_a_retriever_of_langchain_compresses_with_it(server: Emulator) -> None:
    store = InMemoryVectorStore.from_texts(TEXTS[:3], LMStudioEmbeddings(model="vectors", host=server.address))
    retriever = ContextualCompressionRetriever(
        base_compressor=LangChainReranker(model="chat", host=server.address, top_n=2),
        base_retriever=store.as_retriever(search_kwargs={"k": 3}),
    )
    found = await retriever.ainvoke(QUERY)
    assert [each.page_content for each in found] == ["pool", "ferry"]


@pytest.mark.parametrize("surface", SURFACES[2:], ids=str)
def test_llama_index_hears_of_a_call(surface: Surface, server: Emulator, listener: Listener) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    model = surface.make(model="chat", host=server.address, top_n=1, callback_manager=CallbackManager([debug]))
    surface.rerank(model, TEXTS[:3])
    assert listener.names("ReRank") == ["ReRankStartEvent", "ReRankEndEvent"]
    started, ended = [event for event in listener.events if "ReRank" in type(event).__name__]
    assert (started.query.query_str, len(started.nodes), started.top_n, started.model_name) == (QUERY, 3, 1, "chat")
    assert [each.node.get_content() for each in ended.nodes] == ["pool"]
    ((begin, end),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert (begin.payload or {})[EventPayload.TOP_K] == 1
    assert len((end.payload or {})[EventPayload.NODES]) == 1


def test_a_query_engine_of_llama_index_sorts_its_nodes(server: Emulator) -> None:
    documents = [NodeDocument(text=text, metadata={"topic": "town"}) for text in TEXTS[:3]]
    embed_model = LMStudioEmbedding(model="vectors", host=server.address)
    index = VectorStoreIndex.from_documents(documents, embed_model=embed_model)
    reranker = LlamaIndexReranker(model="chat", host=server.address, keep_retrieval_score=True)
    engine = index.as_query_engine(
        llm=LMStudio(model="chat", host=server.address), similarity_top_k=3, node_postprocessors=[reranker]
    )
    response = engine.query(QUERY)
    first = response.source_nodes[0]
    assert (first.node.get_content(), round(first.score or 0, 2)) == ("pool", 0.9)
    assert first.node.metadata["retrieval_score"] is not None
    reranker.metadata_mode = MetadataMode.NONE
    assert reranker.postprocess_nodes(response.source_nodes, query_str=QUERY)[1].node.get_content() == "ferry"
    with pytest.raises(LMStudioValueError, match=re.escape("pass query_str or query_bundle")):
        reranker.postprocess_nodes(response.source_nodes)
