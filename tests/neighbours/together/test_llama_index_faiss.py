"""Documents are embedded into FAISS, and an engine answers from those that fit, also once they are loaded again."""

from pathlib import Path

import pytest
from neighbour_servers import REAL_EMBEDDING, Serve
from neighbour_town import QUESTION, TEXTS, ask, check_sent, index_in, serve_town

pytestmark = pytest.mark.neighbour(
    "llama-index-vector-stores-faiss",
    group="llama-index",
    job="documents in FAISS, found, saved and loaded",
    weekly=True,
)


async def test_the_right_document_is_found(serve: Serve, tmp_path: Path) -> None:
    import faiss
    from llama_index.core import StorageContext, load_index_from_storage
    from llama_index.vector_stores.faiss import FaissVectorStore

    from lmstudio_integrations.llama_index import LMStudioEmbedding

    server = serve_town(serve)
    embed_model = LMStudioEmbedding(model=REAL_EMBEDDING)
    index = index_in(FaissVectorStore(faiss_index=faiss.IndexFlatL2(len(embed_model.get_query_embedding("size")))))
    ask(index)
    index.storage_context.persist(persist_dir=str(tmp_path))
    saved = FaissVectorStore.from_persist_dir(str(tmp_path))
    loaded = load_index_from_storage(
        StorageContext.from_defaults(vector_store=saved, persist_dir=str(tmp_path)), embed_model=embed_model
    )
    shut = "Which day is the museum shut?"
    (found,) = await loaded.as_retriever(similarity_top_k=1).aretrieve(shut)
    assert found.text == TEXTS["museum"]
    check_sent(server, QUESTION, shut, earlier=4)
