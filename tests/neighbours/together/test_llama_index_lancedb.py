"""Documents are embedded into LanceDB, and an engine answers from those that fit, also with a filter."""

from pathlib import Path

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-vector-stores-lancedb",
    group="llama-index",
    job="documents in LanceDB, found and filtered",
    weekly=True,
)

TEXTS = {
    "ferry": "The ferry to the island takes twenty minutes.",
    "pool": "The swimming pool costs four euros.",
    "museum": "The museum is closed on Mondays.",
}


async def test_the_right_document_is_found(serve: Serve, tmp_path: Path) -> None:
    from llama_index.core import Document, StorageContext, VectorStoreIndex
    from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
    from llama_index.vector_stores.lancedb import LanceDBVectorStore

    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    server = serve(
        {"when": {"last": "four euros[\\s\\S]*swimming cost"}, "then": "Four euros."},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    llm, embed_model = LMStudio(model=CHAT).load(), LMStudioEmbedding(model=REAL_EMBEDDING)
    store = LanceDBVectorStore(uri=str(tmp_path / "lance"), table_name="town")
    documents = [Document(text=text, id_=name, metadata={"topic": name}) for name, text in TEXTS.items()]
    index = VectorStoreIndex.from_documents(
        documents, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=embed_model
    )
    engine = index.as_query_engine(llm=llm, similarity_top_k=1)
    response = engine.query("What does swimming cost?")
    assert str(response) == "Four euros."
    assert [node.text for node in response.source_nodes] == [TEXTS["pool"]]
    topic = MetadataFilters(filters=[MetadataFilter(key="topic", value="museum")])
    (found,) = index.as_retriever(similarity_top_k=1, filters=topic).retrieve("What does swimming cost?")
    assert found.text == TEXTS["museum"]
    (asked,) = server.predictions
    assert TEXTS["pool"] in str(asked.messages)
    assert TEXTS["ferry"] not in str(asked.messages)
    assert [each.text for each in server.embedded_texts][3:] == ["What does swimming cost?", "What does swimming cost?"]
