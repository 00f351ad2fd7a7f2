"""A Qdrant store in memory is filled and searched."""

import pytest
from neighbour_servers import REAL_EMBEDDING

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.neighbour(
    "langchain-qdrant",
    group="retrieval",
    job="a store in memory is filled, and searched with a filter",
    settings='the vectors\' size, where the collection is made: `len(embeddings.embed_query("size"))`',
)

FERRY, POOL, LIBRARY = TEXTS = (
    "The ferry takes twenty minutes.",
    "The swimming pool costs four euros.",
    "The library opens at nine.",
)


async def test_a_store_finds_documents(real: Emulator) -> None:
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, FieldCondition, Filter, MatchValue, VectorParams

    from lmstudio_integrations.langchain import LMStudioEmbeddings

    embeddings = LMStudioEmbeddings(model=REAL_EMBEDDING)
    client = QdrantClient(":memory:")
    size = len(embeddings.embed_query("size"))
    client.create_collection("sights", VectorParams(size=size, distance=Distance.COSINE))
    store = QdrantVectorStore(client, "sights", embeddings)
    places: list[dict[str, str]] = [{"place": "harbour"}, {"place": "town"}, {"place": "town"}]
    store.add_texts(list(TEXTS), places)
    question = "How long does one sail?"
    for found in (store.similarity_search(question, k=1), await store.asimilarity_search(question, k=1)):
        assert [document.page_content for document in found] == [FERRY]
    in_town = Filter(must=[FieldCondition(key="metadata.place", match=MatchValue(value="town"))])
    filtered = store.similarity_search("What does a swim cost?", k=3, filter=in_town)
    assert [document.page_content for document in filtered] == [POOL, LIBRARY]
    ((same, score),) = store.similarity_search_with_relevance_scores(FERRY, k=1)
    assert (same.page_content, score) == (FERRY, pytest.approx(1.0, abs=1e-5))
    texts = [record.text for record in real.embedded_texts]
    # The store embeds one text when it opens a collection, to compare the sizes.
    assert texts == ["size", "dummy_text", *TEXTS, question, question, "What does a swim cost?", FERRY]
