"""An ingestion pipeline: split documents, embed the pieces, and find the piece that fits a question.

Uses the LM Studio of this machine, or the one that `LMSTUDIO_HOST` names; `LMSTUDIO_EMBEDDING_MODEL` names another
model. Some models want instructions before the texts, which their cards tell: `query_instruction="search_query: "`.
"""

import asyncio
import os

from llama_index.core import Document
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import TokenTextSplitter

from lmstudio_integrations.llama_index import LMStudioEmbedding

EMBEDDING_MODEL = os.environ.get("LMSTUDIO_EMBEDDING_MODEL", "text-embedding-all-minilm-l6-v2")

TEXTS = (
    "The town library is open from nine to six on weekdays. On Saturdays it closes at one in the afternoon.",
    "The swimming pool costs four euros for adults. Children under six swim for free.",
    "The ferry to the island leaves every hour from the north pier. The crossing takes twenty minutes.",
)
QUESTION = "How much does the swimming pool cost for adults?"


async def main() -> None:
    """Embed three documents and search in them."""
    embed_model = LMStudioEmbedding(model=EMBEDDING_MODEL)
    pipeline = IngestionPipeline(transformations=[TokenTextSplitter(chunk_size=64, chunk_overlap=0), embed_model])

    nodes = await pipeline.arun(documents=[Document(text=text) for text in TEXTS])
    question = await embed_model.aget_query_embedding(QUESTION)
    best = max(nodes, key=lambda node: embed_model.similarity(question, node.get_embedding()))

    print(f"{len(nodes)} pieces; the best is: {best.get_content()}")
    assert best.get_content() == TEXTS[1]


if __name__ == "__main__":
    asyncio.run(main())
