"""Texts are split by meaning, sentences and answers compared by meaning, and filters chosen by the model."""

from importlib.util import find_spec
from pathlib import Path
from shutil import copytree

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-core",
    group="llama-index",
    job="splitting by meaning, comparing by meaning, and filters that the model chooses",
    settings="with uv, `UV_LINK_MODE=copy` when the package is installed (afterwards, with `--reinstall`), or "
    "`NLTK_DATA` with the path of a copy of its `_static/nltk_cache`: nltk refuses to read hard links, which uv makes, "
    "and each text that is split into sentences fails with `PermissionError`",
    weekly=True,
)

FERRY = "The ferry to the island takes twenty minutes. The ferry leaves from the pier at noon. "
POOL = "The swimming pool costs four euros. Children swim in the pool for free."


@pytest.fixture(autouse=True)
def copied_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Copy the data of nltk, as a user of uv does who has installed with hard links."""
    package = find_spec("llama_index.core")
    assert package is not None
    assert package.origin is not None
    copytree(Path(package.origin).parent / "_static/nltk_cache", tmp_path / "nltk")
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "nltk"))


async def test_texts_are_split_and_compared_by_meaning(serve: Serve) -> None:
    from llama_index.core import Document, QueryBundle
    from llama_index.core.evaluation import SemanticSimilarityEvaluator
    from llama_index.core.node_parser import SemanticSplitterNodeParser
    from llama_index.core.postprocessor import SentenceEmbeddingOptimizer
    from llama_index.core.schema import NodeWithScore, TextNode

    from lmstudio_integrations.llama_index import LMStudioEmbedding

    server = serve(models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"])
    embed_model = LMStudioEmbedding(model=REAL_EMBEDDING)
    splitter = SemanticSplitterNodeParser(embed_model=embed_model, buffer_size=0, breakpoint_percentile_threshold=90)
    nodes = splitter.get_nodes_from_documents([Document(text=FERRY + POOL)])
    assert [node.get_content() for node in nodes] == [FERRY, POOL]
    assert len(server.embedded_texts) == 4, "each sentence once"
    optimizer = SentenceEmbeddingOptimizer(
        embed_model=embed_model, threshold_cutoff=0.4, context_before=0, context_after=0
    )
    (kept,) = optimizer.postprocess_nodes(
        [NodeWithScore(node=TextNode(text=FERRY + POOL))], query_bundle=QueryBundle("What does the pool cost?")
    )
    assert kept.text == POOL
    similar = SemanticSimilarityEvaluator(embed_model=embed_model, similarity_threshold=0.5)
    near = await similar.aevaluate(response="It takes twenty minutes.", reference="It lasts 20 minutes.")
    far = await similar.aevaluate(response="It takes twenty minutes.", reference="Swimming is free.")
    assert (near.passing, far.passing) == (True, False)


async def test_the_model_chooses_filters(serve: Serve) -> None:
    import json

    from llama_index.core import Document, VectorStoreIndex
    from llama_index.core.retrievers import VectorIndexAutoRetriever
    from llama_index.core.vector_stores import MetadataInfo, VectorStoreInfo

    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    spec = {"query": "cost", "filters": [{"key": "topic", "value": "pool", "operator": "=="}], "top_k": 1}
    server = serve(
        {"when": {"last": "Structured Request"}, "then": f"```json\n{json.dumps(spec)}\n```"},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    llm, embed_model = LMStudio(model=CHAT).load(), LMStudioEmbedding(model=REAL_EMBEDDING)
    documents = [Document(text=text, metadata={"topic": topic}) for topic, text in (("ferry", FERRY), ("pool", POOL))]
    index = VectorStoreIndex.from_documents(documents, embed_model=embed_model)
    about = VectorStoreInfo(
        content_info="a town", metadata_info=[MetadataInfo(name="topic", type="str", description="ferry or pool")]
    )
    retriever = VectorIndexAutoRetriever(index, vector_store_info=about, llm=llm)
    for found in (retriever.retrieve("What is about the pool?"), await retriever.aretrieve("What is about the pool?")):
        assert [node.metadata["topic"] for node in found] == ["pool"]
    assert [each.text for each in server.embedded_texts][2:] == ["cost", "cost"]
    assert len(server.predictions) == 2
