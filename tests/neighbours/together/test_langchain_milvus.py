"""A Milvus file is filled and searched by meaning, and by meaning and words together."""

from pathlib import Path

import pytest
from neighbour_servers import REAL_EMBEDDING

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.neighbour(
    "langchain-milvus",
    "milvus-lite",
    group="retrieval",
    job="a file of Milvus Lite is filled, opened again, and searched with a filter",
    weekly=True,
)

FERRY, POOL, LIBRARY = TEXTS = (
    "The ferry takes twenty minutes.",
    "The swimming pool costs four euros.",
    "The library opens at nine.",
)


async def test_a_file_finds_documents(real: Emulator, tmp_path: Path) -> None:
    from langchain_milvus import Milvus

    from lmstudio_integrations.langchain import LMStudioEmbeddings

    embeddings = LMStudioEmbeddings(model=REAL_EMBEDDING)
    settings = {
        "connection_args": {"uri": str(tmp_path / "sights.db")},
        "index_params": {"index_type": "FLAT", "metric_type": "COSINE"},
        "auto_id": True,
    }
    places: list[dict[str, str]] = [{"place": "harbour"}, {"place": "town"}, {"place": "town"}]
    Milvus.from_texts(list(TEXTS), embeddings, places, **settings)
    store = Milvus(embeddings, **settings)
    question = "What does a swim cost?"
    for found in (store.similarity_search(question, k=1), await store.asimilarity_search(question, k=1)):
        assert [document.page_content for document in found] == [POOL]
    filtered = store.similarity_search_with_score(question, k=3, expr="place == 'harbour'")
    assert [document.page_content for document, _ in filtered] == [FERRY]
    ((_, score),) = store.similarity_search_with_score(LIBRARY, k=1)
    assert score == pytest.approx(1.0, abs=1e-5)
    texts = [record.text for record in real.embedded_texts]
    assert texts == [*TEXTS, *[question] * 3, LIBRARY]
