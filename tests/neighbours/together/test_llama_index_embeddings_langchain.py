"""LlamaIndex indexes with our LangChain embeddings, and LangChain retrieves from an index of LlamaIndex."""

import pytest
from neighbour_servers import REAL_CHAT, REAL_EMBEDDING

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.neighbour(
    "llama-index-embeddings-langchain",
    "langchain-community",
    group="llama-index",
    job="an index on `LangchainEmbedding(LMStudioEmbeddings())`; LangChain's retriever over an index of LlamaIndex",
    settings="Wrap the object yourself, and name its model: beside langchain-community 0.4.2, "
    "`Settings.embed_model = LMStudioEmbeddings(…)` is an `AssertionError`. Rather use `LMStudioEmbedding`: the "
    "wrapper's async methods send each text in a request of its own. `LlamaIndexRetriever(index=…)` takes a query "
    "engine, which also writes an answer for each question",
    weekly=True,
)

TEXTS = ["Ferries leave from pier 7.", "The museum opens at noon."]
QUESTION = "Where do boats start?"


async def test_an_index_finds_by_langchain_embeddings(real: Emulator) -> None:
    from llama_index.core import Document, Settings, VectorStoreIndex
    from llama_index.embeddings.langchain import LangchainEmbedding

    from lmstudio_integrations.langchain import LMStudioEmbeddings

    ours = LMStudioEmbeddings(model=REAL_EMBEDDING)
    wrapped = LangchainEmbedding(ours)
    assert wrapped.model_name == REAL_EMBEDDING
    index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=wrapped)
    retriever = index.as_retriever(similarity_top_k=1)
    assert [node.text for node in retriever.retrieve(QUESTION)] == TEXTS[:1]
    assert [node.text for node in await retriever.aretrieve(QUESTION)] == TEXTS[:1]
    assert [each.text for each in real.embedded_texts] == [*TEXTS, QUESTION, QUESTION]
    with pytest.raises(AssertionError):
        Settings.embed_model = ours


def test_langchain_retrieves_from_an_index_on_ours(real: Emulator) -> None:
    from langchain_community.retrievers import LlamaIndexRetriever
    from langchain_core.retrievers import BaseRetriever
    from llama_index.core import Document, VectorStoreIndex

    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    documents = [Document(text=text, metadata={"page": page}) for page, text in enumerate(TEXTS)]
    index = VectorStoreIndex.from_documents(documents, embed_model=LMStudioEmbedding(model=REAL_EMBEDDING))
    engine = index.as_query_engine(llm=LMStudio(model=REAL_CHAT, max_tokens=5), similarity_top_k=1)
    retriever: BaseRetriever = LlamaIndexRetriever(index=engine)
    (found,) = retriever.invoke(QUESTION)
    assert (found.page_content, found.metadata) == (TEXTS[0], {"page": 0})
    assert len(real.predictions) == 1
    with pytest.raises(AttributeError, match="no attribute 'query'"):
        LlamaIndexRetriever(index=index).invoke(QUESTION)
