# %% [markdown]
# # Answer from documents in LlamaIndex
#
# Split documents, embed the nodes, and answer a question from those that match it
# best.

# %%
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import TokenTextSplitter

from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

# %%
TEXTS = [
    "The town library is open from nine to six, and on Saturdays until one.",
    "The swimming pool costs four euros for adults. Small children swim for free.",
    "The ferry to the island leaves every hour. The crossing takes twenty minutes.",
]

# %% [markdown]
# The models are transformations and components like any other. `load()` gets the
# real context window of the model, which LlamaIndex reads when an engine is built.

# %%
embed_model = LMStudioEmbedding(model="text-embedding-all-minilm-l6-v2")
llm = LMStudio(model="smollm2-135m-instruct", temperature=0).load()
print(f"Context window: {llm.metadata.context_window:,} tokens")

# %% [markdown]
# An ingestion pipeline turns documents into nodes with vectors.

# %%
pipeline = IngestionPipeline(
    transformations=[TokenTextSplitter(chunk_size=64, chunk_overlap=0), embed_model]
)
nodes = pipeline.run(documents=[Document(text=text) for text in TEXTS])
print(f"{len(nodes)} nodes, {len(nodes[0].get_embedding())} numbers in each vector")

# %% [markdown]
# The query engine embeds the question, finds the best node, and asks the language
# model.

# %%
index = VectorStoreIndex(nodes, embed_model=embed_model)
engine = index.as_query_engine(llm=llm, similarity_top_k=1)
response = engine.query("How much does the swimming pool cost for adults?")
print("Response:", response)

for source in response.source_nodes:
    print("Source:", source.text)
