"""A Chroma store in a folder is filled, opened again, searched with a filter, and emptied."""

from pathlib import Path

import pytest
from neighbour_servers import REAL_EMBEDDING

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.neighbour(
    "langchain-chroma", group="retrieval", job="a store in a folder is filled, opened again and searched"
)

FERRY, POOL, LIBRARY = TEXTS = (
    "The ferry takes twenty minutes.",
    "The swimming pool costs four euros.",
    "The library opens at nine.",
)


async def test_a_store_in_a_folder_finds_documents(real: Emulator, tmp_path: Path) -> None:
    from langchain_chroma import Chroma
    from langchain_core.documents import Document

    from lmstudio_integrations.langchain import LMStudioEmbeddings

    embeddings = LMStudioEmbeddings(model=REAL_EMBEDDING)
    documents = [Document(text, metadata={"number": number}) for number, text in enumerate(TEXTS)]
    written = Chroma("sights", embeddings, str(tmp_path))
    assert await written.aadd_documents(documents, ids=["ferry", "pool", "library"]) == ["ferry", "pool", "library"]

    store = Chroma("sights", embeddings, str(tmp_path))
    question = "What does a swim cost?"
    for found in (store.similarity_search(question, k=1), await store.asimilarity_search(question, k=1)):
        assert [(each.id, each.page_content) for each in found] == [("pool", POOL)]
    filtered = store.similarity_search_with_score(question, k=2, filter={"number": {"$ne": 1}})
    assert {document.page_content for document, _ in filtered} == {FERRY, LIBRARY}
    diverse = store.max_marginal_relevance_search(question, k=2, fetch_k=3)
    assert diverse[0].page_content == POOL
    store.delete(["pool"])
    assert store.similarity_search(question, k=1)[0].page_content != POOL
    assert [record.text for record in real.embedded_texts] == [*TEXTS, *[question] * 5]
