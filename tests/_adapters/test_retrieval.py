"""Retrieval as people build it: an embedding model and a chat model in turn, on a server with Auto-Evict.

Counted in loads, not in seconds: each load of a large model costs a user many of them.
"""

import asyncio
import json
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
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
from llama_index.core.base.base_query_engine import BaseQueryEngine

from lmstudio_integrations import LMStudioEvictionWarning
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioModelUnloadedError
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

pytestmark = pytest.mark.slow

USERS = 12
QUESTIONS = 3
SLOWLY: dict[str, Any] = {"when": {}, "then": [{"text": "Because "}, {"wait": 0.02}, {"text": "of the light."}]}
TEXT = "Because of the light."
MODELS = (
    ModelEntry(key="chat", context_length=8192, rules=(SLOWLY,), load_seconds=0.05),
    ModelEntry(key="reviewer", context_length=8192, rules=(SLOWLY,), load_seconds=0.05),
    ModelEntry(key="vectors", kind="embedding", embedding_length=16, load_seconds=0.05),
)
TEXTS = ["The sky is blue.", "Grass is green.", "Snow is white."]


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with the default settings of LM Studio: a just-in-time load evicts what earlier ones brought."""
    with Emulator(MODELS) as running:
        yield running


def langchain_chain(server: Emulator) -> Runnable[str, str]:
    """Return the retrieval chain of the documentation."""
    store = InMemoryVectorStore(LMStudioEmbeddings(model="vectors", host=server.address))
    store.add_documents([Document(text) for text in TEXTS])
    prompt = ChatPromptTemplate.from_template("Answer from {context}: {question}")
    llm = ChatLMStudio(model="chat", host=server.address)
    sources: dict[str, Any] = {"context": store.as_retriever(), "question": RunnablePassthrough()}
    return sources | prompt | llm | StrOutputParser()


def index_engine(server: Emulator) -> BaseQueryEngine:
    """Return the query engine of the documentation."""
    index = VectorStoreIndex.from_documents(
        [IndexDocument(text=text) for text in TEXTS],
        embed_model=LMStudioEmbedding(model="vectors", host=server.address),
    )
    return index.as_query_engine(llm=LMStudio(model="chat", host=server.address))


def loads(server: Emulator) -> Counter[str]:
    return Counter(load.key for load in server.loads)


def in_threads(call: Callable[[], Any]) -> list[Any]:
    """Let several users call at once, each several times in a row."""
    barrier = Barrier(USERS)

    def user() -> list[Any]:
        barrier.wait(600)
        return [call() for _ in range(QUESTIONS)]

    with ThreadPoolExecutor(USERS) as pool:
        futures = [pool.submit(user) for _ in range(USERS)]
        return [response for future in futures for response in future.result(600)]


async def in_tasks(call: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Let several users call at once, each several times in a row."""

    async def user() -> list[Any]:
        return [await call() for _ in range(QUESTIONS)]

    return [response for responses in await asyncio.gather(*(user() for _ in range(USERS))) for response in responses]


# An embedding model and a chat model ---------------------------------------------------------------------------------


def test_a_langchain_chain_loads_each_model_once(server: Emulator) -> None:
    chain = langchain_chain(server)
    assert set(in_threads(partial(chain.invoke, "Why?"))) == {TEXT}
    assert loads(server) == {"vectors": 1, "chat": 1}


async def test_an_async_langchain_chain_loads_each_model_once(server: Emulator) -> None:
    chain = await asyncio.to_thread(langchain_chain, server)
    assert set(await in_tasks(partial(chain.ainvoke, "Why?"))) == {TEXT}
    assert loads(server) == {"vectors": 1, "chat": 1}


def test_a_query_engine_loads_each_model_once(server: Emulator) -> None:
    engine = index_engine(server)
    assert {str(response) for response in in_threads(partial(engine.query, "Why?"))} == {TEXT}
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


# Two chat models -----------------------------------------------------------------------------------------------------


def test_two_chat_models_evict_each_other_with_one_warning(server: Emulator) -> None:
    writing, reviewing = (ChatLMStudio(model=key, host=server.address) for key in ("chat", "reviewer"))
    chain = writing | StrOutputParser() | reviewing | StrOutputParser()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        responses = [chain.invoke("Why?") for _ in range(QUESTIONS)]
    assert set(responses) == {TEXT}
    assert [warning.category for warning in caught] == [LMStudioEvictionWarning]
    assert loads(server) == {"chat": QUESTIONS, "reviewer": QUESTIONS}


@pytest.mark.filterwarnings("ignore::lmstudio_integrations.LMStudioEvictionWarning")
def test_many_users_whose_models_evict_each_other_are_told_what_prevents_it(server: Emulator) -> None:
    writing, reviewing = (ChatLMStudio(model=key, host=server.address) for key in ("chat", "reviewer"))
    chain = writing | StrOutputParser() | reviewing | StrOutputParser()
    for outcome in in_threads(partial(outcome_of, chain)):
        assert outcome == TEXT or (isinstance(outcome, LMStudioModelUnloadedError) and outcome.retryable), outcome
        assert outcome == TEXT or "load_policy='explicit'" in str(outcome)


def outcome_of(chain: Runnable[str, str]) -> str | Exception:
    try:
        return chain.invoke("Why?")
    except Exception as error:  # noqa: BLE001 - it is checked
        return error


async def test_what_prevents_it_loads_each_model_once(server: Emulator) -> None:
    writing = LMStudio(model="chat", host=server.address)
    reviewing = LMStudio(model="reviewer", host=server.address, load_policy="explicit")

    async def write_and_review() -> str:
        return str(await reviewing.acomplete(str(await writing.acomplete("Why?"))))

    assert set(await in_tasks(write_and_review)) == {TEXT}
    assert loads(server) == {"chat": 1, "reviewer": 1}


# Two programs ---------------------------------------------------------------------------------------------------------

PROGRAM = """
import json, sys, warnings
from langchain_core.exceptions import ModelError
from lmstudio_integrations.errors import LMStudioModelUnloadedError
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

warnings.simplefilter("ignore")
host, key, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
embeddings, llm = LMStudioEmbeddings(model="vectors", host=host), ChatLMStudio(model=key, host=host)
print("ready", flush=True)
sys.stdin.readline()
outcomes = []
for _ in range(rounds):
    embeddings.embed_query("Why?")
    try:
        outcomes.append(llm.invoke("Why?").content)
    except ModelError as error:
        outcomes.append([type(error).__mro__[1].__name__, error.is_retryable, str(error)])
print(json.dumps(outcomes))
"""


def programs_at_once(server: Emulator, keys: tuple[str, ...], rounds: int) -> list[Any]:
    """Run programs that begin at the same moment; return the outcomes of their calls."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, server.address, key, str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for key in keys
    ]
    for program in running:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
    for program in running:
        assert program.stdin is not None
        program.stdin.write("go\n")
        program.stdin.flush()
    return [outcome for program in running for outcome in json.loads(program.communicate(timeout=600)[0])]


@pytest.mark.exhaustive
def test_programs_that_evict_each_others_models_fail_only_with_retryable_errors(server: Emulator) -> None:
    outcomes = programs_at_once(server, ("chat", "reviewer"), rounds=4)
    failures = [outcome for outcome in outcomes if outcome != TEXT]
    assert all(name == "LMStudioModelUnloadedError" and retryable for name, retryable, _ in failures)
    assert loads(server)["vectors"] == 1
    assert len(failures) < len(outcomes) / 2
