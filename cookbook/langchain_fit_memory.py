# %% [markdown]
# # Fit three models into one memory in LangChain
#
# A chat model, an embedding model and a reranker share one memory, such as 16 GB.
# Ask what fits, then load it; only what has to make room for it is unloaded.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    print("Model:", lms.llm().get_info().model_key)
    downloaded = lms.list_downloaded_models("embedding")
except lms.LMStudioError as error:
    raise SystemExit(error) from None
if not downloaded:
    raise SystemExit("This recipe needs an embedding model that is downloaded.")

# %%
from langchain_core.vectorstores import InMemoryVectorStore

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import (
    ChatLMStudio,
    LMStudioEmbeddings,
    LMStudioReranker,
)

# %% [markdown]
# The chat model is the one that is loaded. Without a reranker, it reranks as well.

# %%
chat = lms.llm().get_info().model_key
vectors = lms.list_downloaded_models("embedding")[0].model_key
llms = [each.model_key for each in lms.list_downloaded_models("llm")]
reranking = next((key for key in llms if "rerank" in key.lower()), chat)

# %% [markdown]
# A plan loads nothing. [What fits](../guides/what-fits.md) explains its columns.

# %%
with lms.Client() as client:
    plan = client.plan(list(dict.fromkeys([chat, vectors, reranking])))
print(plan)
if not plan.fits:
    raise SystemExit("The models do not fit at once; take smaller ones.")

# %% [markdown]
# The first call of each object loads its model; ten minutes without one unload it.

# %%
TEXTS = [
    "The swimming pool costs four euros for adults. Small children swim for free.",
    "The ferry to the island leaves every hour. The crossing takes twenty minutes.",
]
QUESTION = "How much does the swimming pool cost for adults?"
embeddings = LMStudioEmbeddings(model=vectors, load_policy="fit", ttl=600)
reranker = LMStudioReranker(model=reranking, load_policy="fit", ttl=600, top_n=1)
model = ChatLMStudio(model=chat, load_policy="fit", ttl=600, temperature=0)

store = InMemoryVectorStore.from_texts(TEXTS, embeddings)
(best,) = reranker.compress_documents(store.similarity_search(QUESTION), QUESTION)
print("Best text:", best.page_content)
prompt = (
    f"Context information is below.\n{best.page_content}\n\n"
    "Given the context information, answer the question in one sentence.\n"
    f"Question: {QUESTION}\nAnswer:"
)
print("Response:", model.invoke(prompt).text)
print("Evicted:", [each.identifier for each in model.hosts()[0].evictions])
