"""A query engine: index texts by their embeddings, and answer from the best match.

Connects to LM Studio on this machine, or to `LMSTUDIO_HOST`. Set `LMSTUDIO_MODEL`
and `LMSTUDIO_EMBEDDING_MODEL` to use other models.
"""

import os

from llama_index.core import Document, VectorStoreIndex

from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")
EMBEDDING_MODEL = os.environ.get(
    "LMSTUDIO_EMBEDDING_MODEL", "text-embedding-all-minilm-l6-v2"
)

TEXTS = (
    "The town library is open from nine to six, and on Saturdays until one.",
    "The swimming pool costs four euros for adults. Small children swim for free.",
    "The ferry to the island leaves every hour. The crossing takes twenty minutes.",
)
QUESTION = "How much does the swimming pool cost for adults?"


def main() -> None:
    """Answer a question from one of three texts."""
    documents = [Document(text=text) for text in TEXTS]
    index = VectorStoreIndex.from_documents(
        documents, embed_model=LMStudioEmbedding(model=EMBEDDING_MODEL)
    )
    engine = index.as_query_engine(
        llm=LMStudio(model=MODEL, temperature=0, max_tokens=100), similarity_top_k=1
    )

    response = engine.query(QUESTION)
    print(response)
    assert str(response).strip()
    assert [source.text for source in response.source_nodes] == [TEXTS[1]]


if __name__ == "__main__":
    main()
