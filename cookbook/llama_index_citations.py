# %% [markdown]
# # Rerank and answer with citations in LlamaIndex
#
# Retrieve more nodes than you need, let a reranker keep the best, and let the model
# answer from these alone, with their numbers. Code checks that each number is that
# of a node.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    print("Model:", lms.llm().get_info().model_key)
    print("Embedding model:", lms.embedding_model().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %%
import re

from llama_index.core import VectorStoreIndex
from llama_index.core.query_engine import CitationQueryEngine
from llama_index.core.schema import TextNode

from lmstudio_integrations.llama_index import (
    LMStudio,
    LMStudioEmbedding,
    LMStudioReranker,
)

# %%
TEXTS = {
    "pool.md": "The swimming pool costs four euros. Small children swim for free.",
    "beach.md": "At the beach, swimming is free, from May to September.",
    "school.md": "Children learn to swim in the school, for ten euros a lesson.",
    "dogs.md": "Dogs swim at the pier, never in the swimming pool.",
    "sauna.md": "The sauna is next to the pool and costs twelve euros.",
    "ferry.md": "The ferry costs nine euros and takes twenty minutes.",
}
QUESTION = "Where can my daughter of four swim without paying?"

# %% [markdown]
# ## Retrieve
#
# Vectors find what is about the same as the question, such as children who swim.
# That is not always what answers it.

# %%
nodes = [
    TextNode(text=text, metadata={"file": name}) for name, text in TEXTS.items()
]
index = VectorStoreIndex(nodes, embed_model=LMStudioEmbedding())
for found in index.as_retriever(similarity_top_k=6).retrieve(QUESTION):
    print("Retrieved:", found.metadata["file"])

# %% [markdown]
# ## Rerank, and answer
#
# `LMStudioReranker` is a postprocessor of nodes: it stands between the retriever
# and the answer, in every query engine. The model says for each node whether it is
# relevant, in one token, whose probability is the score.
#
# Here the loaded model does it. `LMStudioReranker(model="qwen3-reranker-0.6b")`
# takes one that was trained for it, which is small and fast.
#
# `CitationQueryEngine` numbers the nodes and lets the model cite them as [1].

# %%
engine = CitationQueryEngine.from_args(
    index,
    llm=LMStudio(temperature=0).load(),
    similarity_top_k=6,
    node_postprocessors=[LMStudioReranker(top_n=2)],
)
response = engine.query(QUESTION)
files = [source.metadata["file"] for source in response.source_nodes]
for number, source in enumerate(response.source_nodes, 1):
    print(f"[{number}] {files[number - 1]}, score {source.score or 0:.2f}")
if {*files} != {"pool.md", "beach.md"}:
    raise SystemExit("The model did not find the best texts; take a larger model.")
print("Response:", response)

# %% [markdown]
# ## Check the citations
#
# A number without a node was made up. That a sentence follows from its node, this
# does not prove; for that, take a judge, as in `langchain_evaluation.py`.

# %%
cited = {int(number) for number in re.findall(r"\[(\d+)\]", str(response))}
if not cited or not cited <= {1, 2}:
    raise SystemExit("The model did not cite the sources; take a larger model.")
print("Cited:", *(files[number - 1] for number in sorted(cited)))
