"""A LanceDB table in a folder is filled and searched through LangChain."""

from pathlib import Path

import pytest
from neighbour_servers import REAL_EMBEDDING

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.neighbour(
    "lancedb",
    "langchain-community",
    group="retrieval",
    job="LangChain's store fills and searches a table in a folder",
    settings="with a filter, `prefilter=True`: else it filters what it has found, and may return nothing",
    weekly=True,
)

FERRY, POOL, LIBRARY = TEXTS = (
    "The ferry takes twenty minutes.",
    "The swimming pool costs four euros.",
    "The library opens at nine.",
)


async def test_a_table_finds_documents(real: Emulator, tmp_path: Path) -> None:
    import lancedb
    from langchain_community.vectorstores import LanceDB

    from lmstudio_integrations.langchain import LMStudioEmbeddings

    embeddings = LMStudioEmbeddings(model=REAL_EMBEDDING)
    database = lancedb.connect(str(tmp_path))
    store = LanceDB(connection=database, embedding=embeddings, table_name="sights")
    store.add_texts(list(TEXTS), [{"place": "harbour"}, {"place": "town"}, {"place": "town"}])
    question = "What does a swim cost?"
    for found in (store.similarity_search(question, k=1), await store.asimilarity_search(question, k=1)):
        assert [document.page_content for document in found] == [POOL]
    filtered = store.similarity_search(question, k=1, filter={"metadata.place": "harbour"}, prefilter=True)
    assert [document.page_content for document in filtered] == [FERRY]
    again = LanceDB(connection=lancedb.connect(str(tmp_path)), embedding=embeddings, table_name="sights", mode="append")
    assert again.similarity_search("When can I read?", k=1)[0].page_content == LIBRARY
    texts = [record.text for record in real.embedded_texts]
    assert texts == [*TEXTS, *[question] * 3, "When can I read?"]
