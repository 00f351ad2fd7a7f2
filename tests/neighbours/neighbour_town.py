"""Three documents in a vector store of LlamaIndex, and a question that one of them answers."""

from typing import Any

from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

from lmstudio_integrations.emulator import Emulator

TEXTS = {
    "ferry": "The ferry to the island takes twenty minutes.",
    "pool": "The swimming pool costs four euros.",
    "museum": "The museum is closed on Mondays.",
}
"""The documents, by their topic."""

QUESTION = "What does swimming cost?"


def serve_town(serve: Serve) -> Emulator:
    """Start a server that embeds with a real model, and answers the question from the document about the pool."""
    server: Emulator = serve(
        {"when": {"last": "four euros[\\s\\S]*swimming cost"}, "then": "Four euros."},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    return server


def index_in(store: Any) -> Any:
    """Return an index with the documents in a store."""
    from llama_index.core import Document, StorageContext, VectorStoreIndex

    from lmstudio_integrations.llama_index import LMStudioEmbedding

    documents = [Document(text=text, id_=name, metadata={"topic": name}) for name, text in TEXTS.items()]
    storage_context = StorageContext.from_defaults(vector_store=store)
    embed_model = LMStudioEmbedding(model=REAL_EMBEDDING)
    return VectorStoreIndex.from_documents(documents, storage_context=storage_context, embed_model=embed_model)


def ask(index: Any) -> None:
    """Ask the question: an engine finds the document about the pool, and answers from it."""
    from lmstudio_integrations.llama_index import LMStudio

    engine = index.as_query_engine(llm=LMStudio(model=CHAT).load(), similarity_top_k=1)
    response = engine.query(QUESTION)
    assert str(response) == "Four euros."
    assert [node.text for node in response.source_nodes] == [TEXTS["pool"]]


def on_topic(name: str) -> Any:
    """Return the filter for the documents of a topic."""
    from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

    return MetadataFilters(filters=[MetadataFilter(key="topic", value=name)])


def check_sent(server: Emulator, *questions: str, earlier: int = len(TEXTS)) -> None:
    """Check what the server got: one prompt, with the found document alone, and the texts to embed.

    Args:
        server: The server.
        questions: The texts that were embedded last.
        earlier: How many texts were embedded before them.
    """
    (asked,) = server.predictions
    assert TEXTS["pool"] in str(asked.messages)
    assert TEXTS["ferry"] not in str(asked.messages)
    assert [each.text for each in server.embedded_texts][earlier:] == [*questions]
