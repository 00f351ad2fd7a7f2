"""The model ranks what was found, as RankGPT asks it to."""

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-postprocessor-rankgpt-rerank", group="llama-index", job="the model ranks what was found"
)


async def test_the_model_ranks(serve: Serve) -> None:
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.postprocessor.rankgpt_rerank import RankGPTRerank

    from lmstudio_integrations.llama_index import LMStudio

    texts = ("The ferry takes twenty minutes.", "The pool costs four euros.", "The museum is closed on Mondays.")
    server = serve({"then": "[3] > [1] > [2]"})
    rerank = RankGPTRerank(llm=LMStudio(model=CHAT), top_n=2)
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in texts]
    for found in (
        rerank.postprocess_nodes(nodes, query_str="On which day is the museum closed?"),
        await rerank.apostprocess_nodes(nodes, query_str="On which day is the museum closed?"),
    ):
        assert [each.text for each in found] == [texts[2], texts[0]]
    asked, _ = server.predictions
    assert [each["role"] for each in asked.messages] == ["system", "user", "assistant"] + ["user", "assistant"] * 3 + [
        "user"
    ]
