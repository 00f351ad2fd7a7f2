"""Documents are indexed with an SQL record manager, so that only what changed is embedded."""

from pathlib import Path

import pytest
from neighbour_servers import REAL_EMBEDDING

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.neighbour(
    "langchain-classic",
    "langchain-chroma",
    group="retrieval",
    job="`index` with an SQL record manager embeds only what changed",
)


async def test_only_what_changed_is_embedded(real: Emulator, tmp_path: Path) -> None:
    from langchain_chroma import Chroma
    from langchain_classic.indexes import SQLRecordManager
    from langchain_core.documents import Document
    from langchain_core.indexing import index

    from lmstudio_integrations.langchain import LMStudioEmbeddings

    def page(name: str, text: str) -> Document:
        return Document(text, metadata={"source": name})

    store = Chroma("pages", LMStudioEmbeddings(model=REAL_EMBEDDING), str(tmp_path / "store"))
    manager = SQLRecordManager("chroma/pages", db_url=f"sqlite:///{tmp_path / 'records.db'}")
    manager.create_schema()
    ferry, pool = page("ferry", "The ferry takes twenty minutes."), page("pool", "A swim costs four euros.")
    dearer = page("pool", "A swim costs five euros.")

    def indexed(*pages: Document) -> list[int]:
        done = index(list(pages), manager, store, cleanup="full", source_id_key="source", key_encoder="sha256")
        return [done["num_added"], done["num_skipped"], done["num_deleted"]]

    assert indexed(ferry, pool) == [2, 0, 0]
    assert indexed(ferry, pool) == [0, 2, 0]
    assert indexed(ferry, dearer) == [1, 1, 1]
    texts = [record.text for record in real.embedded_texts]
    assert texts == [each.page_content for each in (ferry, pool, dearer)]
    (found,) = store.similarity_search("What does a swim cost?", k=1)
    assert found.page_content == dearer.page_content
