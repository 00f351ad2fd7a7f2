# %% [markdown]
# # Ingest documents into Qdrant in LlamaIndex
#
# An `IngestionPipeline` splits documents, embeds them with LM Studio and writes
# them to Qdrant. Its docstore knows what was ingested, so a second run embeds
# nothing, and a changed document is embedded alone. Any embedding model will do.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    print("Embedding model:", lms.embedding_model().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %%
import tempfile
from pathlib import Path
from typing import Any

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.vector_stores.qdrant import QdrantVectorStore
from llama_index_instrumentation import get_dispatcher
from qdrant_client import QdrantClient

from lmstudio_integrations.llama_index import LMStudioEmbedding

# %% [markdown]
# ## Count what is embedded


# %%
class EmbeddedTexts(BaseEventHandler):
    """Counts the texts that were embedded."""

    count: int = 0

    def handle(self, event: Any, **_: Any) -> None:
        """Add the texts of a batch."""
        if isinstance(event, EmbeddingEndEvent):
            self.count += len(event.chunks)


embedded = EmbeddedTexts()
get_dispatcher().add_event_handler(embedded)

# %% [markdown]
# ## The documents
#
# Each has an ID that stays the same, for example its path.

# %%
texts = {
    "library": "The town library is open from nine to six.",
    "pool": "The swimming pool costs four euros for adults.",
    "ferry": "The ferry to the island leaves every hour, the last one at 18:30.",
}


def documents() -> list[Document]:
    """Return the documents as they are now."""
    return [
        Document(id_=name, text=text, metadata={"file": f"{name}.txt"})
        for name, text in texts.items()
    ]


# %% [markdown]
# ## The pipeline
#
# Qdrant keeps its data in a folder; take one that stays. For a server, pass a URL
# instead of the path.

# %%
temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
STATE = str(Path(temporary.name, "pipeline"))
embed_model = LMStudioEmbedding()


def open_pipeline() -> tuple[QdrantClient, IngestionPipeline]:
    """Open the database, with a pipeline for it."""
    client = QdrantClient(path=str(Path(temporary.name, "qdrant")))
    # An index of document IDs needs a server; in a process, Qdrant has none.
    store = QdrantVectorStore("town", client, index_doc_id=False)
    splitter = SentenceSplitter(chunk_size=128, chunk_overlap=16)
    return client, IngestionPipeline(
        transformations=[splitter, embed_model],
        docstore=SimpleDocumentStore(),
        vector_store=store,
    )


def ingest(pipeline: IngestionPipeline) -> int:
    """Run the pipeline and save its state; return how many texts were embedded."""
    before = embedded.count
    nodes = pipeline.run(documents=documents())
    pipeline.persist(STATE)
    print(f"{len(nodes)} nodes written, {embedded.count - before} texts embedded")
    return embedded.count - before


client, pipeline = open_pipeline()
assert ingest(pipeline) == 3
client.close()

# %% [markdown]
# ## The next run
#
# It loads the state and finds nothing to do. If a document has changed, its old
# nodes are deleted, and it is embedded alone.

# %%
client, pipeline = open_pipeline()
pipeline.load(STATE)
assert ingest(pipeline) == 0

texts["ferry"] = "The ferry to the island leaves every half hour until 20:00."
assert ingest(pipeline) == 1
assert client.count("town").count == 3

# %% [markdown]
# ## Search
#
# For an answer instead of nodes, take `index.as_query_engine(llm=LMStudio())`.

# %%
assert pipeline.vector_store
index = VectorStoreIndex.from_vector_store(pipeline.vector_store, embed_model)
(best,) = index.as_retriever(similarity_top_k=1).retrieve(
    "When does the last ferry to the island leave?"
)
print("Best match:", best.text)
if best.text != texts["ferry"]:
    raise SystemExit("The wrong text was found; take a larger embedding model.")
client.close()
temporary.cleanup()
