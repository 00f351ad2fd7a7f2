"""Documents are embedded into Qdrant, and an engine answers from those that fit, also with a filter."""

import pytest
from neighbour_servers import Serve
from neighbour_town import QUESTION, TEXTS, ask, check_sent, index_in, on_topic, serve_town

pytestmark = pytest.mark.neighbour(
    "llama-index-vector-stores-qdrant",
    group="llama-index",
    job="documents in Qdrant, found and filtered",
    weekly=True,
)


async def test_the_right_document_is_found(serve: Serve) -> None:
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient

    server = serve_town(serve)
    client = QdrantClient(":memory:")
    index = index_in(QdrantVectorStore("town", client=client))
    ask(index)
    (found,) = index.as_retriever(similarity_top_k=1, filters=on_topic("museum")).retrieve(QUESTION)
    assert found.text == TEXTS["museum"]
    assert client.count("town").count == 3
    check_sent(server, QUESTION, QUESTION)
