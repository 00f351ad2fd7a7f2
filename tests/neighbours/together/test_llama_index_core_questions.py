"""Query engines and retrievers that rewrite the question: sub-questions, steps, HyDE and fusion."""

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-core",
    group="llama-index",
    job="questions in parts, in steps, by an imagined answer (HyDE) and by variants (fusion)",
    settings="`question_gen=LLMQuestionGenerator.from_defaults(llm=llm)`: else the package wants OpenAI's package for "
    "the questions",
)

TEXTS = ("The ferry takes twenty minutes.", "The pool costs four euros.", "The museum is closed on Mondays.")
ANSWERS = (
    {"when": {"last": "takes twenty minutes[\\s\\S]*How long"}, "then": "Twenty minutes."},
    {"when": {"last": "costs four euros[\\s\\S]*What does"}, "then": "Four euros."},
)


async def test_a_question_is_asked_in_parts(serve: Serve) -> None:
    import json

    from llama_index.core import Document, VectorStoreIndex
    from llama_index.core.query_engine import SubQuestionQueryEngine
    from llama_index.core.question_gen import LLMQuestionGenerator
    from llama_index.core.response_synthesizers import get_response_synthesizer
    from llama_index.core.tools import QueryEngineTool

    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    parts = [
        {"sub_question": "How long does the ferry take?", "tool_name": "town"},
        {"sub_question": "What does the pool cost?", "tool_name": "town"},
    ]
    server = serve(
        {"when": {"last": "Sub question: How[\\s\\S]*Sub question: What"}, "then": "Twenty minutes, four euros."},
        {"when": {"last": "list of relevant sub-questions"}, "then": f"```json\n{json.dumps({'items': parts})}\n```"},
        *ANSWERS,
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    llm = LMStudio(model=CHAT).load()
    embed_model = LMStudioEmbedding(model=REAL_EMBEDDING)
    index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=embed_model)
    tool = QueryEngineTool.from_defaults(
        index.as_query_engine(llm=llm, similarity_top_k=1), name="town", description="about the town"
    )
    engine = SubQuestionQueryEngine.from_defaults(
        query_engine_tools=[tool],
        llm=llm,
        question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
        response_synthesizer=get_response_synthesizer(llm=llm),
        verbose=False,
    )
    response = await engine.aquery("Compare the ferry and the pool.")
    assert str(response) == "Twenty minutes, four euros."
    _, *answers, last = [each.text for each in server.predictions]  # two at once
    assert (sorted(answers), last) == (["Four euros.", "Twenty minutes."], "Twenty minutes, four euros.")
    assert sorted(each.text for each in server.embedded_texts[3:]) == sorted(each["sub_question"] for each in parts)


def test_a_question_is_asked_in_steps(serve: Serve) -> None:
    from llama_index.core import Document, VectorStoreIndex
    from llama_index.core.indices.query.query_transform.base import StepDecomposeQueryTransform
    from llama_index.core.query_engine import MultiStepQueryEngine
    from llama_index.core.response_synthesizers import get_response_synthesizer

    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    server = serve(
        {"when": {"last": "original question is as follows[\\s\\S]*New question"}, "then": "How long does it take?"},
        {"when": {"last": "given the context"}, "then": "How long does the ferry take?"},
        *ANSWERS,
        {"then": "Twenty minutes in all."},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    llm = LMStudio(model=CHAT).load()
    embed_model = LMStudioEmbedding(model=REAL_EMBEDDING)
    index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=embed_model)
    engine = MultiStepQueryEngine(
        query_engine=index.as_query_engine(llm=llm, similarity_top_k=1),
        query_transform=StepDecomposeQueryTransform(llm=llm, verbose=False),
        response_synthesizer=get_response_synthesizer(llm=llm),
        index_summary="what is in the town",
        num_steps=1,
    )
    response = engine.query("How long must I plan for the ferry?")
    assert response.metadata["sub_qa"][0][1].response == "Twenty minutes."
    assert len(server.predictions) == 3


def test_a_question_is_rewritten(serve: Serve) -> None:
    from llama_index.core import Document, VectorStoreIndex
    from llama_index.core.indices.query.query_transform import HyDEQueryTransform
    from llama_index.core.query_engine import TransformQueryEngine
    from llama_index.core.retrievers import QueryFusionRetriever

    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    server = serve(
        {"when": {"last": "write a passage"}, "then": "The swimming pool costs euros."},
        {"when": {"last": "generates multiple search queries"}, "then": "the boat's time\nprice of the pool\n"},
        *ANSWERS,
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    llm = LMStudio(model=CHAT).load()
    embed_model = LMStudioEmbedding(model=REAL_EMBEDDING)
    index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=embed_model)
    imagined = TransformQueryEngine(
        index.as_query_engine(llm=llm, similarity_top_k=1), HyDEQueryTransform(llm=llm, include_original=True)
    )
    question = "What does it cost?"
    assert str(imagined.query(question)) == "Four euros."
    embedded = [each.text for each in server.embedded_texts][3:]
    assert sorted(embedded) == ["The swimming pool costs euros.", question]
    fusion = QueryFusionRetriever(
        [index.as_retriever(similarity_top_k=1)],
        llm=llm,
        num_queries=3,
        similarity_top_k=2,
        mode="reciprocal_rerank",
        use_async=False,
    )
    assert {node.text for node in fusion.retrieve("How long does the ferry take?")} == set(TEXTS[:2])
    assert sorted(each.text for each in server.embedded_texts[5:]) == sorted(
        ["How long does the ferry take?", "the boat's time", "price of the pool"]
    )
