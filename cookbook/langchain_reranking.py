# %% [markdown]
# # Rerank search results with the model in LangChain
#
# Vectors find the texts that are about the same as the question, which is not
# always the one that answers it. So retrieve more texts than you need, let the chat
# model score each of them, and keep the best.

# %%
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

# %%
TEXTS = [
    "The ferry is nine euros for adults and half of that for children.",
    "Pets on a leash are carried for free on all boats of the town.",
    "To pay for the ferry, use the machine on the pier.",
    "In a storm the ferry stays in the harbor. Tickets are refunded.",
    "The bus to the pier does not take dogs.",
    "Dogs are welcome on the beach from October to April.",
]
QUESTION = "How much is the ferry for a dog?"

# %% [markdown]
# ## Retrieve
#
# The closest text has the words of the question, but not the answer. Here `k` takes
# all of the few texts; with thousands, 20 to 50 are common.

# %%
store = InMemoryVectorStore.from_texts(TEXTS, LMStudioEmbeddings())
found = store.similarity_search(QUESTION, k=6)
for document in found:
    print("Retrieved:", document.page_content)

# %% [markdown]
# ## Score
#
# One call per text: each is scored on its own, so neither its place in a list nor
# the other texts change its score, and the prompts stay short. The schema allows
# nothing but a number from 0 to 10.
#
# `batch` sends the calls together. LM Studio runs as many at once as the model was
# loaded for, and queues the others. Still, this is one call per text and question:
# rerank where a better answer is worth the wait.


# %%
class Relevance(BaseModel):
    """How well a text answers a question."""

    score: int = Field(ge=0, le=10)


prompt = ChatPromptTemplate.from_template(
    """How well does the text answer the question?
Give a score from 0 (it is about something else) to 10 (it has the answer).

Question: {question}
Text: {text}"""
)
model = ChatLMStudio(temperature=0)
scorer = prompt | model.with_structured_output(Relevance)


def rerank(question: str, documents: list[Document], k: int) -> list[Document]:
    """Return the best documents, best first; equal scores keep their order."""
    inputs = [
        {"question": question, "text": each.page_content} for each in documents
    ]
    scores = [Relevance.model_validate(each).score for each in scorer.batch(inputs)]
    ranked = sorted(zip(scores, documents, strict=True), key=lambda each: -each[0])
    for score, document in ranked:
        print(f"Score {score:2}: {document.page_content}")
    return [document for _, document in ranked[:k]]


best = rerank(QUESTION, found, k=2)
assert len(best) == 2
if "Pets" not in best[0].page_content:
    raise SystemExit("The model did not find the best text; take a larger model.")

# %% [markdown]
# ## Answer
#
# The model reads only the best texts.

# %%
context = "\n".join(document.page_content for document in best)
response = model.invoke(f"{context}\n\nAnswer in one sentence: {QUESTION}")
print("Response:", response.text)

# %% [markdown]
# In LlamaIndex, `StructuredLLMRerank(llm=LMStudio(), top_n=2)` is such a reranker,
# a node postprocessor that scores ten texts with each call. Import it from
# `llama_index.core.postprocessor`.
