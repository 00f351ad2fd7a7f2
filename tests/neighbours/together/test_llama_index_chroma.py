"""Documents are embedded into Chroma, and an engine answers from those that fit, also with a filter."""

from pathlib import Path

import pytest
from neighbour_servers import Serve
from neighbour_town import QUESTION, TEXTS, ask, check_sent, index_in, on_topic, serve_town

pytestmark = pytest.mark.neighbour(
    "llama-index-vector-stores-chroma",
    group="llama-index",
    job="documents in Chroma, found and filtered",
    environment={"ANONYMIZED_TELEMETRY": "False"},
)


async def test_the_right_document_is_found(serve: Serve, tmp_path: Path) -> None:
    from chromadb import PersistentClient
    from llama_index.vector_stores.chroma import ChromaVectorStore

    server = serve_town(serve)
    collection = PersistentClient(str(tmp_path)).create_collection("town")
    index = index_in(ChromaVectorStore(chroma_collection=collection))
    ask(index)
    (found,) = await index.as_retriever(similarity_top_k=1, filters=on_topic("museum")).aretrieve(QUESTION)
    assert found.text == TEXTS["museum"]
    assert collection.count() == 3
    check_sent(server, QUESTION, QUESTION)
