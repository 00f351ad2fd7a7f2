# %% [markdown]
# # Ingest documents into Qdrant in LlamaIndex
#
# An `IngestionPipeline` splits documents, embeds them with LM Studio and writes
# them to Qdrant. Its docstore knows what was ingested, so a second run embeds
# nothing, and a changed document is embedded alone.

# %%
import tempfile
from pathlib import Path

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

from lmstudio_integrations.llama_index import LMStudioEmbedding

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
embed_model = LMStudioEmbedding(model="text-embedding-all-minilm-l6-v2")


def open_pipeline() -> tuple[QdrantVectorStore, IngestionPipeline]:
    """Open the database, with a pipeline for it."""
    client = QdrantClient(path=str(Path(temporary.name, "qdrant")))
    # An index of document IDs needs a server; in a process, Qdrant has none.
    store = QdrantVectorStore("town", client, index_doc_id=False)
    splitter = SentenceSplitter(chunk_size=128, chunk_overlap=16)
    return store, IngestionPipeline(
        transformations=[splitter, embed_model],
        docstore=SimpleDocumentStore(),
        vector_store=store,
    )


def ingest(pipeline: IngestionPipeline) -> None:
    """Run the pipeline and save its state."""
    nodes = pipeline.run(documents=documents())
    pipeline.persist(STATE)
    print(f"{len(nodes)} nodes were embedded and written")


store, pipeline = open_pipeline()
ingest(pipeline)
store.client.close()

# %% [markdown]
# ## The next run
#
# It loads the state and finds nothing to do. If a document has changed, its old
# nodes are deleted, and it is embedded alone.

# %%
store, pipeline = open_pipeline()
pipeline.load(STATE)
ingest(pipeline)

texts["ferry"] = "The ferry to the island leaves every half hour until 20:00."
ingest(pipeline)
print("Nodes in Qdrant:", store.client.count("town").count)

# %% [markdown]
# ## Search
#
# For an answer instead of nodes, take `index.as_query_engine(llm=LMStudio())`.

# %%
index = VectorStoreIndex.from_vector_store(store, embed_model)
(best,) = index.as_retriever(similarity_top_k=1).retrieve(
    "When does the last ferry to the island leave?"
)
print("Best match:", best.text)
store.client.close()
temporary.cleanup()
