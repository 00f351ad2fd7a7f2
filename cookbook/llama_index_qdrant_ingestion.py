# %% [markdown]
# # Ingest documents into Qdrant in LlamaIndex
#
# An `IngestionPipeline` of LlamaIndex splits documents, embeds them with LM Studio
# and writes them to Qdrant. Its docstore knows what was ingested, so a second run
# embeds nothing and a changed document is embedded alone. Its cache knows the
# vectors, so a lost database is filled again without embedding.

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

import lmstudio_integrations as lms
from lmstudio_integrations.llama_index import LMStudioEmbedding

# %% [markdown]
# Any loaded embedding model will do. In your program, name it: the cache then keeps
# the vectors of different models apart.

# %%
try:
    print("Embedding model:", lms.embedding_model().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

embed_model = LMStudioEmbedding()

# %% [markdown]
# ## Count what is embedded
#
# LlamaIndex emits an event for each batch of texts that it has embedded. This
# handler counts the texts, so that the recipe can show what each run costs.


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
# Each document has an ID that stays the same, for example its path. The pipeline
# compares the hash of the text with the one that the docstore has under this ID.

# %%
texts = {
    "library": "The town library is open from nine to six, on Saturdays until one.",
    "pool": "The swimming pool costs four euros for adults and two for children.",
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
# The pipeline runs once for each document. The cache has one entry for everything
# that a run is given, so this way a vector is found again whatever happened to the
# other documents.
#
# Qdrant runs inside of this process and keeps its data in a folder; for a server,
# pass a URL instead of the path. The docstore and the cache are saved next to it.
# This recipe uses a temporary folder; in your program, take one that stays.

# %%
temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
STATE = str(Path(temporary.name, "pipeline"))


def open_database(name: str) -> QdrantVectorStore:
    """Open the database of this name, or create it."""
    client = QdrantClient(path=str(Path(temporary.name, name)))
    # An index of document IDs needs a server; in a process, Qdrant has none.
    return QdrantVectorStore("town", client, index_doc_id=False)


def make_pipeline(vector_store: QdrantVectorStore) -> IngestionPipeline:
    """Return a pipeline that has ingested nothing yet."""
    return IngestionPipeline(
        transformations=[
            SentenceSplitter(chunk_size=128, chunk_overlap=16),
            embed_model,
        ],
        docstore=SimpleDocumentStore(),
        vector_store=vector_store,
    )


def ingest(pipeline: IngestionPipeline) -> int:
    """Run the pipeline and save its state; return how many texts were embedded."""
    before = embedded.count
    written = sum(len(pipeline.run(documents=[each])) for each in documents())
    pipeline.persist(STATE)
    print(f"{written} nodes written, {embedded.count - before} texts embedded")
    return embedded.count - before


store = open_database("qdrant")
assert ingest(make_pipeline(store)) == 3

# %% [markdown]
# ## The next run
#
# This is what happens when your program starts again: it opens the database, loads
# the state and finds nothing to do.

# %%
store.client.close()
store = open_database("qdrant")
pipeline = make_pipeline(store)
pipeline.load(STATE)

assert ingest(pipeline) == 0

# %% [markdown]
# ## A document changes
#
# Its old nodes are deleted, and it is embedded alone.

# %%
texts["ferry"] = "The ferry to the island leaves every half hour until 20:00."

assert ingest(pipeline) == 1
assert store.client.count("town").count == 3

# %% [markdown]
# ## Search
#
# The index takes its nodes from the database, so it embeds only the question. For
# an answer instead of nodes, take `index.as_query_engine(llm=LMStudio())`.

# %%
index = VectorStoreIndex.from_vector_store(store, embed_model)
(best,) = index.as_retriever(similarity_top_k=1).retrieve(
    "When does the last ferry to the island leave?"
)
print("Best match:", best.text)
if best.text != texts["ferry"]:
    raise SystemExit("The wrong text was found; take a larger embedding model.")

# %% [markdown]
# ## The database is lost
#
# A new database is empty, and so is the docstore that belongs to it. The cache is
# still there: all nodes are written again, and nothing is embedded.

# %%
store.client.close()
store = open_database("new")
rebuilt = make_pipeline(store)
rebuilt.cache = pipeline.cache

assert ingest(rebuilt) == 0
assert store.client.count("town").count == 3

# %%
store.client.close()
temporary.cleanup()
