"""Words and vectors find documents together, for variants of a question that the model writes."""

from pathlib import Path

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-retrievers-bm25",
    group="llama-index",
    job="search by words (BM25) and by vectors together, answered by the model",
    weekly=True,
)

TEXTS = (
    "The ferry to the island takes twenty minutes.",
    "The swimming pool costs four euros.",
    "The museum is closed on Mondays.",
    "Ticket code K7-4411 is valid for one day.",
)


async def test_words_and_vectors_find_together(serve: Serve, tmp_path: Path) -> None:
    from llama_index.core import Document, VectorStoreIndex
    from llama_index.core.query_engine import RetrieverQueryEngine
    from llama_index.core.retrievers import QueryFusionRetriever
    from llama_index.retrievers.bm25 import BM25Retriever

    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    server = serve(
        {"when": {"last": "generates multiple search queries"}, "then": "validity of K7-4411"},
        {"when": {"last": "one day[\\s\\S]*Query: What about K7"}, "then": "One day."},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    llm, embed_model = LMStudio(model=CHAT).load(), LMStudioEmbedding(model=REAL_EMBEDDING)
    index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=embed_model)
    by_words = BM25Retriever.from_defaults(index=index, similarity_top_k=1)
    question = "What about K7-4411?"
    fusion = QueryFusionRetriever(
        [index.as_retriever(similarity_top_k=1), by_words],
        llm=llm,
        num_queries=2,
        similarity_top_k=1,
        mode="reciprocal_rerank",
    )
    response = await RetrieverQueryEngine.from_args(fusion, llm=llm).aquery(question)
    assert str(response) == "One day."
    assert [node.text for node in response.source_nodes] == [TEXTS[3]]
    assert len(server.predictions) == 2
    assert sorted(each.text for each in server.embedded_texts[4:]) == [question, "validity of K7-4411"]
    by_words.persist(str(tmp_path / "words"))
    (found,) = BM25Retriever.from_persist_dir(str(tmp_path / "words")).retrieve("swimming")
    assert found.text == TEXTS[1]
