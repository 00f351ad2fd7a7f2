"""Documents are embedded into LanceDB, and an engine answers from those that fit, also with a filter."""

from pathlib import Path

import pytest
from neighbour_servers import Serve
from neighbour_town import QUESTION, TEXTS, ask, check_sent, index_in, on_topic, serve_town

pytestmark = pytest.mark.neighbour(
    "llama-index-vector-stores-lancedb",
    group="llama-index",
    job="documents in LanceDB, found and filtered",
    weekly=True,
)


async def test_the_right_document_is_found(serve: Serve, tmp_path: Path) -> None:
    from llama_index.vector_stores.lancedb import LanceDBVectorStore

    server = serve_town(serve)
    index = index_in(LanceDBVectorStore(uri=str(tmp_path / "lance"), table_name="town"))
    ask(index)
    (found,) = index.as_retriever(similarity_top_k=1, filters=on_topic("museum")).retrieve(QUESTION)
    assert found.text == TEXTS["museum"]
    check_sent(server, QUESTION, QUESTION)
