"""The documents of the demo, a question about one of them, the retrieval of it, and the prompt.

Uses LangChain and nothing of LM Studio: any chat model and any embeddings will do.
"""

from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore

DOCUMENTS = {
    "library": "The town library is open from nine to six on weekdays. On Saturdays it closes at one in the afternoon.",
    "pool": "The swimming pool costs four euros for adults. Children under six swim for free.",
    "ferry": "The ferry to the island leaves every hour from the north pier. The crossing takes twenty minutes.",
}
"""The texts by title."""

QUESTION = "How long does the ferry to the island take?"

PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "You are a helpful assistant. Answer the question from the text, in one short sentence."),
        ("human", "{text}\n\nQuestion: {question}"),
    ]
)


def find(question: str, embeddings: Embeddings) -> tuple[str, str]:
    """Return title and text of the document most similar to a question."""
    metadata: list[dict[str, Any]] = [{"title": title} for title in DOCUMENTS]
    store = InMemoryVectorStore.from_texts(list(DOCUMENTS.values()), embeddings, metadatas=metadata)
    (document,) = store.similarity_search(question, k=1)
    return document.metadata["title"], document.page_content
