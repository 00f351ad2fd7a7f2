"""Retrieval as people build it: an embedding model and a chat model in turn, on a server with Auto-Evict.

Counted in loads, not in seconds: each load of a large model costs a user many of them.
"""

import asyncio
import re
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import Document as IndexDocument
from llama_index.core import VectorStoreIndex

from lmstudio_integrations import LMStudioEvictionWarning
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from lmstudio_integrations.types.config import LoadPolicy
from tests.docs.snippets import read
from tests.support.served import served

pytestmark = pytest.mark.slow

USERS, QUESTIONS = 6, 2
SLOWLY: dict[str, Any] = {"when": {}, "then": [{"text": "Because "}, {"wait": 0.02}, {"text": "of the light."}]}
TEXT = "Because of the light."
MODELS = (
    ModelEntry(key="chat", context_length=8192, rules=(SLOWLY,), load_seconds=0.05),
    ModelEntry(key="reviewer", context_length=8192, rules=(SLOWLY,), load_seconds=0.05),
    ModelEntry(key="vectors", kind="embedding", embedding_length=16, load_seconds=0.05),
)
TEXTS = ["The sky is blue.", "Grass is green.", "Snow is white."]

server = served(MODELS, scope="function")
"""A server with the default settings of LM Studio: a just-in-time load evicts what earlier ones brought."""


def loads(server: Emulator) -> Counter[str]:
    return Counter(load.key for load in server.loads)


def ask(chain: Runnable[str, str]) -> list[str]:
    """Let several users call at once, each several times in a row."""
    barrier = Barrier(USERS)

    def user() -> list[str]:
        barrier.wait(600)
        return [chain.invoke("Why?") for _ in range(QUESTIONS)]

    with ThreadPoolExecutor(USERS) as pool:
        futures = [pool.submit(user) for _ in range(USERS)]
        return [response for future in futures for response in future.result(600)]


def test_a_langchain_chain_loads_each_model_once(server: Emulator) -> None:
    store = InMemoryVectorStore(LMStudioEmbeddings(model="vectors", host=server.address))
    store.add_documents([Document(text) for text in TEXTS])
    prompt = ChatPromptTemplate.from_template("Answer from {context}: {question}")
    sources: dict[str, Any] = {"context": store.as_retriever(), "question": RunnablePassthrough()}
    chain = sources | prompt | ChatLMStudio(model="chat", host=server.address) | StrOutputParser()
    assert set(ask(chain)) == {TEXT}
    assert loads(server) == {"vectors": 1, "chat": 1}


async def test_a_query_engine_loads_each_model_once(server: Emulator) -> None:
    embed_model = LMStudioEmbedding(model="vectors", host=server.address)
    make_index = partial(VectorStoreIndex.from_documents, embed_model=embed_model)
    index = await asyncio.to_thread(make_index, [IndexDocument(text=text) for text in TEXTS])
    engine = index.as_query_engine(llm=LMStudio(model="chat", host=server.address))
    responses = await asyncio.gather(*(engine.aquery("Why?") for _ in range(USERS)))
    assert {str(response) for response in responses} == {TEXT}
    assert loads(server) == {"vectors": 1, "chat": 1}


def test_an_embedding_model_that_was_loaded_just_in_time_is_evicted_once(server: Emulator) -> None:
    with ChatLMStudio(model="chat", host=server.address) as llm:
        with LMStudioEmbeddings(model="vectors", host=server.address, load_policy="get_or_load") as by_somebody:
            by_somebody.embed_query("a")
        embeddings = LMStudioEmbeddings(model="vectors", host=server.address)
        embeddings.embed_query("a")
        with pytest.warns(LMStudioEvictionWarning):
            llm.invoke("Why?")
        for _ in range(QUESTIONS):
            embeddings.embed_query("a")
            llm.invoke("Why?")
    assert [(load.key, load.mode) for load in server.loads] == [
        ("vectors", "just_in_time"),
        ("chat", "just_in_time"),
        ("vectors", "explicit"),
    ]


def test_two_chat_models_evict_each_other_with_one_warning(server: Emulator) -> None:
    writing, reviewing = (ChatLMStudio(model=key, host=server.address) for key in ("chat", "reviewer"))
    chain = writing | StrOutputParser() | reviewing | StrOutputParser()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        responses = [chain.invoke("Why?") for _ in range(QUESTIONS)]
    assert set(responses) == {TEXT}
    assert [warning.category for warning in caught] == [LMStudioEvictionWarning]
    assert loads(server) == {"chat": QUESTIONS, "reviewer": QUESTIONS}
    section = re.findall('see "(.+)" in the guide', str(caught[0].message))
    assert section
    assert f"\n## {section[0]}\n" in read("docs/guides/loading.md")


@pytest.mark.parametrize(
    ("policy", "other"),
    [
        ("explicit", "get_or_load"),
        ("get_or_load", "explicit"),
        ("explicit", "explicit"),
        pytest.param("fit", "fit", marks=pytest.mark.leaf),
    ],
)
def test_two_chat_models_stay_with_the_policies_that_the_guide_names(
    policy: LoadPolicy, other: LoadPolicy, server: Emulator
) -> None:
    planner = ChatLMStudio(model="chat", load_policy=policy, host=server.address)
    coder = LMStudio(model="reviewer", load_policy=other, host=server.address)
    for _ in range(QUESTIONS):
        planner.invoke("Why?")
        coder.complete("Why?")
    assert loads(server) == {"chat": 1, "reviewer": 1}
