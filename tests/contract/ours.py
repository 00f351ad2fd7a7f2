"""This package as an integration of each framework, connected to an emulator whose engine records the requests."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lmstudio_integrations.emulator import Emulator
from tests.contract import llama_index as llama_index_suite
from tests.contract.engine import RecordingEngine
from tests.contract.langchain import integration as langchain_suite
from tests.contract.models import CHAT, EMBEDDING, MODELS, UNREACHABLE


@contextmanager
def _server() -> Iterator[tuple[str, RecordingEngine]]:
    engine = RecordingEngine()
    with Emulator(MODELS, engines={"scripted": engine}, auto_evict=False) as server:
        yield server.address, engine


@contextmanager
def langchain() -> Iterator[langchain_suite.Integration]:
    """Connect the LangChain adapters."""
    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, register

    register()

    def chat(address: str) -> Callable[..., Any]:
        return lambda **given: ChatLMStudio(**{"model": CHAT, "host": address, **given})

    with _server() as (address, engine):
        yield langchain_suite.Integration(
            name="lmstudio-integrations",
            chat=chat(address),
            unreachable=chat(UNREACHABLE),
            embeddings=lambda **given: LMStudioEmbeddings(**{"model": EMBEDDING, "host": address, **given}),
            server=engine,
            provider="lmstudio",
            connection={"host": address},
        )


@contextmanager
def llama_index() -> Iterator[llama_index_suite.Integration]:
    """Connect the LlamaIndex adapters."""
    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    def llm(address: str) -> Callable[..., Any]:
        return lambda **given: LMStudio(model=CHAT, host=address, **given)

    def embedding(**given: Any) -> LMStudioEmbedding:
        return LMStudioEmbedding(model=EMBEDDING, host=address, **llama_index_suite.with_instruction(given))

    with _server() as (address, engine):
        yield llama_index_suite.Integration(llm(address), llm(UNREACHABLE), embedding, engine)
