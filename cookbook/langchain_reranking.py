# %% [markdown]
# # Hybrid search, reranking and citations in LangChain
#
# A search by words (BM25) finds the M42; one by vectors knows that a puppy is a
# dog. Let both search, let a model judge what they found, and check the words that
# the answer quotes. Load a language model and an embedding model; any will do.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    print("Model:", lms.llm().get_info().model_key)
    print("Embedding model:", lms.embedding_model().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %%
from typing import Any

import bm25s
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import BaseModel, Field

from lmstudio_integrations.langchain import (
    ChatLMStudio,
    LMStudioEmbeddings,
    LMStudioReranker,
)

TEXTS = [
    "The M42 costs nine euros for adults, and half of that for children.",
    "Dogs travel for free on all boats, if they are on a leash.",
    "The M41 costs seven euros for adults. Children travel for free.",
    "The bus to the pier of the M42 does not take dogs.",
    "To pay in cash, go to the office at pier 3.",
]
QUESTION = "What do my puppy and I pay on the M42?"

# %% [markdown]
# ## Two searches
#
# Take more from each than you need, such as 20.

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
    """Return what both searches find."""
    found = by_words(query, k) + store.similarity_search(query, k=k)
    return list({each.page_content: each for each in found}.values())


# %% [markdown]
# ## Rerank
#
# The loaded model does it here; better name [one that was trained for
# it](../guides/reranking.md).

# %%
reranker = LMStudioReranker(top_n=2, score_threshold=0.5)
best = reranker.compress_documents(search(QUESTION, k=4), QUESTION)
for document in best:
    print(f"{document.metadata['relevance_score']:.2f}", document.page_content)
if TEXTS[1] not in [document.page_content for document in best]:
    raise SystemExit("The model did not find the best text; take a larger model.")

# %% [markdown]
# ## Answer with citations
#
# The model quotes a source before it says what follows from it.


# %%
class Statement(BaseModel):
    """A sentence of the answer, and the words that prove it."""

    quote: str
    source: int = Field(ge=1, le=len(best))
    sentence: str


class Answer(BaseModel):
    """The answer to a question."""

    statements: list[Statement]


sources = "\n".join(f"[{i}] {each.page_content}" for i, each in enumerate(best, 1))
PROMPT = f"""Answer the question from the sources. For each sentence, copy the words
of the source that prove it.

{sources}

Question: {QUESTION}"""
model = ChatLMStudio(temperature=0).with_structured_output(Answer)
answer = Answer.model_validate(model.invoke(PROMPT))

# %% [markdown]
# A quote that is not in its source was made up.

# %%
for each in answer.statements:
    proven = each.quote.lower() in best[each.source - 1].page_content.lower()
    print(f"{proven=}: {each.sentence} [{each.source}: {each.quote!r}]")
