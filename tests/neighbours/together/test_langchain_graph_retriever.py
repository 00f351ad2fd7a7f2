"""A retriever finds a document by meaning, and others along what their metadata share."""

import pytest
from neighbour_servers import REAL_EMBEDDING

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.neighbour(
    "langchain-graph-retriever",
    "graph-retriever",
    group="retrieval",
    job="finds a document by meaning, and others along the edges of their metadata",
    settings="a store in memory: the adapter of graph-retriever 0.8.0 for Chroma imports what chromadb 1 no longer has",
)


async def test_a_retriever_follows_edges(real: Emulator) -> None:
    from graph_retriever.strategies import Eager
    from langchain_core.documents import Document
    from langchain_core.vectorstores import InMemoryVectorStore
    from langchain_graph_retriever import GraphRetriever

    from lmstudio_integrations.langchain import LMStudioEmbeddings

    documents = [
        Document("The ferry takes twenty minutes.", id="ferry", metadata={"place": "harbour"}),
        Document("Nets are mended here on Mondays.", id="nets", metadata={"place": "harbour"}),
        Document("The swimming pool costs four euros.", id="pool", metadata={"place": "town"}),
    ]
    embeddings = LMStudioEmbeddings(model=REAL_EMBEDDING)
    question = "How long does one sail?"
    store = InMemoryVectorStore.from_documents(documents, embeddings)
    retriever = GraphRetriever(store=store, edges=[("place", "place")], strategy=Eager(k=3, start_k=1, max_depth=1))
    for found in (retriever.invoke(question), await retriever.ainvoke(question)):
        assert {document.id: document.metadata["_depth"] for document in found} == {"ferry": 0, "nets": 1}
    texts = [document.page_content for document in documents]
    assert [record.text for record in real.embedded_texts] == [*texts, question, question]
