# %% [markdown]
# # Hybrid search and reranking in LangChain
#
# A search by words finds the M42 and knows no synonym; a search by vectors knows
# that a leash belongs to a dog and takes M41 for M42. So let both search, and let a
# model judge each text that they found: a reranker reads the question and the text
# together.

# %%
from typing import Any

import bm25s
from langchain_core.documents import Document
from langchain_core.runnables import chain
from langchain_core.vectorstores import InMemoryVectorStore

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import (
    ChatLMStudio,
    LMStudioEmbeddings,
    LMStudioReranker,
)

# %% [markdown]
# Load a language model and an embedding model; any will do.

# %%
try:
    print("Model:", lms.llm().get_info().model_key)
    print("Embedding model:", lms.embedding_model().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %%
TEXTS = [
    "The M42 costs nine euros for adults, and half of that for children.",
    "Dogs travel for free on all boats, if they are on a leash.",
    "The M41 costs seven euros for adults. Children travel for free.",
    "The bus to the pier of the M42 does not take dogs.",
    "Dogs are welcome on the beach from October to April.",
    "To pay in cash, go to the office at pier 3.",
    "In a storm the boats stay in the harbor. Tickets are refunded.",
    "The museum shows a model of the first lighthouse.",
]
QUESTION = "What does my dog pay on the M42?"

# %% [markdown]
# ## Two searches
#
# `bm25s` is a small library for BM25. Take more texts from each search than you
# need: with thousands, 20 to 50 are common.

# %%
documents = [Document(text) for text in TEXTS]
store = InMemoryVectorStore.from_documents(documents, LMStudioEmbeddings())
bm25 = bm25s.BM25()
bm25.index(bm25s.tokenize(TEXTS, show_progress=False), show_progress=False)


def by_words(query: str, k: int) -> list[Document]:
    """Return the documents that have a word of the query, by BM25."""
    tokens = bm25s.tokenize(query, show_progress=False)
    found: Any = bm25.retrieve(tokens, documents, k=k, show_progress=False)
    best = zip(found.documents[0], found.scores[0], strict=True)
    return [document for document, score in best if score > 0]


def search(query: str, k: int) -> list[Document]:
    """Return what either search finds, each document once."""
    found = by_words(query, k) + store.similarity_search(query, k=k)
    return list({each.page_content: each for each in found}.values())


for document in search(QUESTION, k=4):
    print("Found:", document.page_content)

# %% [markdown]
# ## Rerank
#
# The scores of the two searches cannot be compared. They need not be: the reranker
# asks the model whether a text is relevant, and its score is the probability that
# the response begins with yes. That is one token for each text.
#
# Here the loaded model does it. `LMStudioReranker(model="qwen3-reranker-0.6b")`
# takes one that was trained for it, which is small and fast.

# %%
reranker = LMStudioReranker(top_n=2, score_threshold=0.5)


@chain
def retrieve(question: str) -> list[Document]:
    """Return the best documents of both searches, best first."""
    return list(reranker.compress_documents(search(question, k=4), question))


best = retrieve.invoke(QUESTION)
for document in best:
    print(f"{document.metadata['relevance_score']:.2f}", document.page_content)
if documents[1].page_content not in [each.page_content for each in best]:
    raise SystemExit("The model did not find the best text; take a larger model.")

# %% [markdown]
# ## Answer
#
# The model reads only the best texts. `retrieve` is a `Runnable`, so a chain takes
# it as its retriever.

# %%
context = "\n".join(document.page_content for document in best)
model = ChatLMStudio(temperature=0)
response = model.invoke(f"{context}\n\nAnswer in one sentence: {QUESTION}")
print("Response:", response.text)
