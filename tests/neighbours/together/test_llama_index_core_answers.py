"""Answers with citations, from trees and summaries of documents, and after the model has reranked what was found."""

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-core",
    group="llama-index",
    job="answers with citations, tree and document summary indexes, and reranking by the model",
    weekly=True,
)

TEXTS = ("The ferry takes twenty minutes.", "The pool costs four euros.", "The museum is closed on Mondays.")


def test_an_answer_cites_its_sources(serve: Serve) -> None:
    from llama_index.core import Document, VectorStoreIndex
    from llama_index.core.query_engine import CitationQueryEngine

    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    server = serve(
        {"when": {"last": "Source 1:\\s+The pool[\\s\\S]*Query: What does"}, "then": "Four euros [1]."},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    llm, embed_model = LMStudio(model=CHAT).load(), LMStudioEmbedding(model=REAL_EMBEDDING)
    index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=embed_model)
    engine = CitationQueryEngine.from_args(index, llm=llm, similarity_top_k=1, citation_chunk_size=128)
    response = engine.query("What does the pool cost?")
    assert str(response) == "Four euros [1]."
    assert response.source_nodes[0].text == "Source 1:\nThe pool costs four euros.\n"
    assert len(server.predictions) == 1


async def test_summaries_of_documents_find_them(serve: Serve) -> None:
    from llama_index.core import Document, DocumentSummaryIndex, TreeIndex
    from llama_index.core.indices.document_summary import DocumentSummaryIndexLLMRetriever
    from llama_index.core.response_synthesizers import get_response_synthesizer

    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    server = serve(
        {"when": {"last": "Write a summary of the following"}, "then": "A summary."},
        {"when": {"last": "Some choices are given below"}, "then": "ANSWER: 1, it says so."},
        {"when": {"last": "[Rr]elevance"}, "then": "Doc: 2, Relevance: 9"},
        {"when": {"last": "Describe what the provided text is about|summary"}, "then": "About the town."},
        {"then": "Twenty minutes."},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    llm, embed_model = LMStudio(model=CHAT).load(), LMStudioEmbedding(model=REAL_EMBEDDING)
    documents = [Document(text=text, id_=str(number)) for number, text in enumerate(TEXTS)]
    tree = TreeIndex.from_documents(documents, llm=llm, num_children=2, show_progress=False)
    assert str(tree.as_query_engine(llm=llm).query("How long does the ferry take?")) == "Twenty minutes."
    summaries = DocumentSummaryIndex.from_documents(
        documents,
        llm=llm,
        embed_model=embed_model,
        response_synthesizer=get_response_synthesizer(llm=llm, response_mode="tree_summarize", use_async=False),
        show_progress=False,
    )
    assert summaries.get_document_summary("0") == "About the town."
    assert [each.text for each in server.embedded_texts] == ["About the town."] * 3
    by_model = DocumentSummaryIndexLLMRetriever(summaries, llm=llm, choice_top_k=1)
    (found,) = await by_model.aretrieve("What does the pool cost?")
    assert (found.text, found.score) == (TEXTS[1], 9.0)
    assert all(len(each.messages) == 1 or each.messages[0]["role"] == "system" for each in server.predictions)


async def test_the_model_reranks(serve: Serve) -> None:
    from llama_index.core.postprocessor import LLMRerank
    from llama_index.core.schema import NodeWithScore, TextNode

    from lmstudio_integrations.llama_index import LMStudio

    server = serve({"then": "Doc: 3, Relevance: 9\nDoc: 1, Relevance: 4"})
    rerank = LLMRerank(llm=LMStudio(model=CHAT), choice_batch_size=5, top_n=2)
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS]
    for found in (
        rerank.postprocess_nodes(nodes, query_str="On which day is the museum closed?"),
        await rerank.apostprocess_nodes(nodes, query_str="On which day is the museum closed?"),
    ):
        assert [(each.text, each.score) for each in found] == [(TEXTS[2], 9.0), (TEXTS[0], 4.0)]
    assert len(server.predictions) == 2
