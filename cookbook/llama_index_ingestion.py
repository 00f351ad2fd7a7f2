"""An ingestion pipeline: split documents, embed the nodes, and find the best match.

Connects to LM Studio on this machine, or to `LMSTUDIO_HOST`. Set
`LMSTUDIO_EMBEDDING_MODEL` to use another model. Some models expect a prefix; see
the model card, and pass it as `query_instruction="search_query: "`.
"""

import asyncio
import os

from llama_index.core import Document
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import TokenTextSplitter

from lmstudio_integrations.llama_index import LMStudioEmbedding

EMBEDDING_MODEL = os.environ.get(
    "LMSTUDIO_EMBEDDING_MODEL", "text-embedding-all-minilm-l6-v2"
)

TEXTS = (
    "The town library is open from nine to six, and on Saturdays until one.",
    "The swimming pool costs four euros for adults. Small children swim for free.",
    "The ferry to the island leaves every hour. The crossing takes twenty minutes.",
)
QUESTION = "How much does the swimming pool cost for adults?"


async def main() -> None:
    """Embed three documents and search them."""
    embed_model = LMStudioEmbedding(model=EMBEDDING_MODEL)
    pipeline = IngestionPipeline(
        transformations=[
            TokenTextSplitter(chunk_size=64, chunk_overlap=0),
            embed_model,
        ]
    )

    nodes = await pipeline.arun(documents=[Document(text=text) for text in TEXTS])
    question = await embed_model.aget_query_embedding(QUESTION)
    best = max(
        nodes,
        key=lambda node: embed_model.similarity(question, node.get_embedding()),
    )

    print(f"{len(nodes)} nodes; the best match: {best.get_content()}")
    assert best.get_content() == TEXTS[1]


if __name__ == "__main__":
    asyncio.run(main())
