"""Stores in this process are filled and searched: DuckDB and USearch."""

import pytest
from neighbour_servers import REAL_EMBEDDING

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.neighbour(
    "langchain-community",
    "duckdb",
    "usearch",
    group="retrieval",
    job="DuckDB and USearch store and find documents",
    weekly=True,
)

FERRY, POOL, LIBRARY = TEXTS = (
    "The ferry takes twenty minutes.",
    "The swimming pool costs four euros.",
    "The library opens at nine.",
)


@pytest.mark.parametrize("name", ["DuckDB", "USearch"])
async def test_a_store_finds_documents(real: Emulator, name: str) -> None:
    from langchain_community import vectorstores

    from lmstudio_integrations.langchain import LMStudioEmbeddings

    embeddings = LMStudioEmbeddings(model=REAL_EMBEDDING)
    numbers = [{"number": number} for number in range(3)]
    store = getattr(vectorstores, name).from_texts(list(TEXTS), embeddings, numbers)
    question = "What does a swim cost?"
    for found in (store.similarity_search(question, k=1), await store.asimilarity_search(question, k=1)):
        assert [(document.page_content, document.metadata["number"]) for document in found] == [(POOL, 1)]
    store.add_texts(["The museum shows ships."])
    assert store.as_retriever(search_kwargs={"k": 1}).invoke("Where are old boats?")[0].page_content.endswith("ships.")
    texts = [record.text for record in real.embedded_texts]
    assert texts == [*TEXTS, question, question, "The museum shows ships.", "Where are old boats?"]
