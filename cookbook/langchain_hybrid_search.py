# %% [markdown]
# # Hybrid search with citations in LangChain
#
# Vectors find what means the same in other words; BM25 finds the exact word, such
# as a number or a name. Hybrid search takes the best of both. The response then
# cites its sources as [1], and code checks every citation.

# %%
from typing import Any

import bm25s
from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import BaseModel, Field

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

# %% [markdown]
# Load a language model and an embedding model; any will do.

# %%
try:
    print("Model:", lms.llm().get_info().model_key)
    print("Embedding model:", lms.embedding_model().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %% [markdown]
# ## The texts
#
# Each has a source, which the response can cite.

# %%
TEXTS = {
    "m40.md": "The M40 goes from pier 1 to the island, every hour.",
    "m41.md": "The M41 goes from pier 3 to the airport, at six and at nine.",
    "m42.md": "The M42 goes from pier 7 to the lighthouse, at noon only.",
    "m43.md": "The M43 goes from pier 2 to the old town, every half hour.",
    "pets.md": "Dogs travel for free on all boats, if they are on a leash.",
    "bicycles.md": "A bicycle costs three euros on all boats.",
    "office.md": "Tickets are sold in the office until six.",
}
documents = [Document(text, id=source) for source, text in TEXTS.items()]

# %% [markdown]
# ## Two searches
#
# `bm25s` is a small library for BM25 that keeps its index in memory or in a file.
# Both searches return the sources, best first.

# %%
bm25 = bm25s.BM25()
bm25.index(
    bm25s.tokenize(list(TEXTS.values()), show_progress=False), show_progress=False
)
store = InMemoryVectorStore(LMStudioEmbeddings())
store.add_documents(documents)


def by_words(query: str) -> list[str]:
    """Return the sources that have a word of the query, by BM25."""
    tokens = bm25s.tokenize(query, show_progress=False)
    found: Any = bm25.retrieve(
        tokens, list(TEXTS), k=len(TEXTS), show_progress=False
    )
    best = zip(found.documents[0], found.scores[0], strict=True)
    return [str(source) for source, score in best if score > 0]


def by_vectors(query: str) -> list[str]:
    """Return the sources by the similarity of their vectors."""
    found = store.similarity_search(query, k=len(TEXTS))
    return [str(document.id) for document in found]


# %% [markdown]
# ## Fuse them
#
# The scores of the two searches cannot be compared, so reciprocal rank fusion uses
# the ranks: a source gets 1 / (60 + rank) from each search that found it. The 60 is
# the usual constant; it keeps the first place of one search from deciding alone.


# %%
def search(query: str, k: int) -> list[str]:
    """Return the best sources of both searches."""
    scores: dict[str, float] = {}
    for ranking in (by_words(query), by_vectors(query)):
        for rank, source in enumerate(ranking, 1):
            scores[source] = scores.get(source, 0) + 1 / (60 + rank)
    return sorted(scores, key=lambda source: -scores[source])[:k]


# %% [markdown]
# Only BM25 is sure that M42 is not M43, and only the vectors know that a puppy is a
# dog.

# %%
QUESTION = "Where does the M42 leave, and what does my puppy pay?"
sources = search(QUESTION, k=3)
print("BM25:   ", ", ".join(by_words(QUESTION)[:3]))
print("Vectors:", ", ".join(by_vectors(QUESTION)[:3]))
print("Hybrid: ", ", ".join(sources))
assert "m42.md" in sources

# %% [markdown]
# ## Answer with citations
#
# The schema makes the model cite: first it copies words of a source, then it gives
# the number of the source, and then it states what follows from them. The grammar
# allows no other numbers than those of the sources.


# %%
class Statement(BaseModel):
    """A sentence of the answer, and the words that prove it."""

    quote: str = Field(max_length=120)
    source: int = Field(ge=1, le=len(sources))
    sentence: str = Field(max_length=120)


class Answer(BaseModel):
    """The answer to a question."""

    statements: list[Statement] = Field(min_length=1, max_length=4)


prompt = ChatPromptTemplate.from_template(
    """Answer the question from the sources. For each sentence of the answer, copy
the words of one source that prove it, exactly, and give the number of the source.

{sources}

Question: {question}"""
)
chain = prompt | ChatLMStudio(temperature=0).with_structured_output(Answer)
numbered = [f"[{number}] {TEXTS[each]}" for number, each in enumerate(sources, 1)]
answer = Answer.model_validate(
    chain.invoke({"sources": "\n".join(numbered), "question": QUESTION})
)

# %% [markdown]
# ## Check the citations
#
# A quote that is not in its source was made up, and so perhaps was the sentence. It
# is left out. The check proves where the words are from, not that the sentence
# follows from them; for that, take a judge, as in `langchain_evaluation.py`.


# %%
def is_proven(statement: Statement) -> bool:
    """Return whether the quote is in the source, whatever its case and spaces."""
    text, quote = TEXTS[sources[statement.source - 1]], statement.quote
    return " ".join(quote.split()).lower() in " ".join(text.split()).lower()


for each in answer.statements:
    verdict = "ok" if is_proven(each) else "NOT IN THE SOURCE"
    print(f"Quote of [{each.source}]: {each.quote!r}, {verdict}")
proven = [each for each in answer.statements if is_proven(each)]
if not proven:
    raise SystemExit("The model did not quote a source; take a larger model.")

# %%
print("Answer:", *(f"{each.sentence} [{each.source}]" for each in proven))
for number in sorted({each.source for each in proven}):
    print(f"[{number}] {sources[number - 1]}: {TEXTS[sources[number - 1]]}")
