"""The model takes a document apart into statements, and puts those of one topic into one node."""

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-node-parser-topic",
    group="llama-index",
    job="the model splits a document into nodes by topic",
    settings='one call for each statement of a document: choose a fast model, or `similarity_method="embedding"`',
    weekly=True,
)

TEXT = "The ferry takes twenty minutes, and leaves from pier 7.\n\nThe pool costs four euros."
FERRY = ["The ferry takes twenty minutes.", "The ferry leaves from pier 7."]
POOL = ["The pool costs four euros."]


@pytest.mark.parametrize("method", ["llm", "embedding"])
def test_a_document_is_split_by_topic(serve: Serve, method: str) -> None:
    import json

    from llama_index.core import Document
    from llama_index.node_parser.topic import TopicNodeParser

    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding, LMStudioTokenizer

    server = serve(
        {"when": {"last": "^The ferry takes twenty minutes, and"}, "then": json.dumps(FERRY)},
        {"when": {"last": "^The pool"}, "then": json.dumps(POOL)},
        {"when": {"last": "Text 2: The pool"}, "then": "different topic"},
        {"when": {"last": "Text 2: The ferry"}, "then": "same topic"},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    llm = LMStudio(model=CHAT)
    parser = TopicNodeParser.from_defaults(
        llm=llm,
        embed_model=LMStudioEmbedding(model=REAL_EMBEDDING),
        similarity_method=method,
        similarity_threshold=0.3,
        window_size=1,
        tokenizer=LMStudioTokenizer(llm),
    )
    nodes = parser([Document(text=TEXT)])
    assert [node.get_content() for node in nodes] == [" ".join(FERRY), *POOL]
    split = [each for each in server.predictions if "Decompose" in str(each.messages[0])]
    assert [each.messages[1]["content"] for each in split] == TEXT.split("\n\n")
    assert len(server.predictions) == (4 if method == "llm" else 2)
    assert len(server.embedded_texts) == (0 if method == "llm" else 4)
