"""What a search found is filtered, cut and sorted, by the model and by embeddings."""

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "langchain-classic",
    "langchain-community",
    group="retrieval",
    job="filters, cuts and sorts what a search found, by the model and by embeddings",
    weekly=True,
)

FERRY, POOL, LIBRARY = TEXTS = (
    "The ferry takes twenty minutes.",
    "The swimming pool costs four euros.",
    "The library opens at nine.",
)
QUESTION = "What does a swim cost?"


async def test_what_was_found_is_compressed(serve: Serve) -> None:
    from langchain_classic.retrievers import ContextualCompressionRetriever
    from langchain_classic.retrievers.document_compressors import (
        DocumentCompressorPipeline,
        EmbeddingsFilter,
        LLMChainExtractor,
        LLMChainFilter,
        LLMListwiseRerank,
    )
    from langchain_community.document_transformers import EmbeddingsRedundantFilter
    from langchain_core.vectorstores import InMemoryVectorStore

    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

    server = serve(
        {"when": {"last": "(?s)>>>\nThe swimming.*Extracted relevant parts"}, "then": "four euros"},
        {"when": {"last": "Extracted relevant parts"}, "then": "NO_OUTPUT"},
        {"when": {"last": "(?s)>>>\nThe swimming.*YES / NO"}, "then": "YES"},
        {"when": {"last": "YES / NO"}, "then": "NO"},
        {"when": {"structured": True}, "then": '{"ranked_document_ids": [2, 0, 1]}'},
        models=(f"{REAL_EMBEDDING}={REAL_EMBEDDING}",),
    )
    model, embeddings = ChatLMStudio(model=CHAT), LMStudioEmbeddings(model=REAL_EMBEDDING)
    store = InMemoryVectorStore.from_texts([*TEXTS, POOL], embeddings)

    async def compressed(compressor: object, count: int) -> list[str]:
        retriever = ContextualCompressionRetriever(
            base_compressor=compressor, base_retriever=store.as_retriever(search_kwargs={"k": 4})
        )
        found = [
            [each.page_content for each in result]
            for result in (retriever.invoke(QUESTION), await retriever.ainvoke(QUESTION))
        ]
        assert found[0] == found[1]
        assert len(server.predictions) == count
        return found[0]

    assert await compressed(LLMChainExtractor.from_llm(model), 8) == ["four euros"] * 2
    assert await compressed(LLMChainFilter.from_llm(model), 16) == [POOL, POOL]
    ranked = LLMListwiseRerank.from_llm(model, top_n=2)
    assert len(await compressed(ranked, 18)) == 2
    assert server.predictions[-1].config["structured"]["jsonSchema"]["title"] == "RankDocuments"
    unlike = EmbeddingsRedundantFilter(embeddings=embeddings)
    near = EmbeddingsFilter(embeddings=embeddings, similarity_threshold=0.4)
    assert await compressed(DocumentCompressorPipeline(transformers=[unlike, near]), 18) == [POOL]
