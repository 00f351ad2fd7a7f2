"""The LlamaIndex integrations, by package name; each is imported on first use."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.contract.emulated import EmulatorServer
from tests.contract.llama_index import Integration
from tests.contract.models import CHAT, EMBEDDING, UNREACHABLE
from tests.contract.peers.http_server import HttpServer


def _instruction(given: dict[str, Any]) -> dict[str, Any]:
    """Replace `instructed` by a query instruction, under the name that most integrations use."""
    instructed = given.pop("instructed", False)
    return {**given, "query_instruction": "search: "} if instructed else given


@contextmanager
def _ours() -> Iterator[Integration]:
    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    def llm(address: str) -> Callable[..., Any]:
        return lambda **given: LMStudio(model=CHAT, host=address, **given)

    def embedding(**given: Any) -> LMStudioEmbedding:
        return LMStudioEmbedding(model=EMBEDDING, host=server.address, **_instruction(given))

    with EmulatorServer() as server:
        yield Integration(llm(server.address), llm(UNREACHABLE), embedding, server.engine)


@contextmanager
def _lmstudio() -> Iterator[Integration]:
    from llama_index.llms.lmstudio import LMStudio

    def llm(address: str) -> Callable[..., Any]:
        return lambda **given: LMStudio(model_name=CHAT, base_url=f"http://{address}/v1", **given)

    with HttpServer() as server:
        yield Integration(llm(server.address), llm(UNREACHABLE), None, server.engine)


@contextmanager
def _openai_like() -> Iterator[Integration]:
    from llama_index.embeddings.openai import OpenAIEmbedding
    from llama_index.llms.openai_like import OpenAILike

    def llm(address: str) -> Callable[..., Any]:
        settings: dict[str, Any] = {
            "model": CHAT,
            "api_base": f"http://{address}/v1",
            "api_key": "x",
            "is_chat_model": True,
            "is_function_calling_model": True,
            "should_use_structured_outputs": True,
            "additional_kwargs": {"stream_options": {"include_usage": True}},
        }
        return lambda **given: OpenAILike(**{**settings, **given})

    def embedding(**given: Any) -> OpenAIEmbedding:
        given.pop("instructed", None)
        return OpenAIEmbedding(model_name=EMBEDDING, api_base=f"http://{server.address}/v1", api_key="x", **given)

    with HttpServer() as server:
        yield Integration(llm(server.address), llm(UNREACHABLE), embedding, server.engine)


@contextmanager
def _ollama() -> Iterator[Integration]:
    from llama_index.embeddings.ollama import OllamaEmbedding
    from llama_index.llms.ollama import Ollama

    def llm(address: str) -> Callable[..., Any]:
        return lambda **given: Ollama(model=CHAT, base_url=f"http://{address}", **given)

    def embedding(**given: Any) -> OllamaEmbedding:
        return OllamaEmbedding(model_name=EMBEDDING, base_url=f"http://{server.address}", **_instruction(given))

    with HttpServer() as server:
        yield Integration(llm(server.address), llm(UNREACHABLE), embedding, server.engine)


INTEGRATIONS: dict[str, Callable[[], Any]] = {
    "lmstudio-integrations": _ours,
    "llama-index-llms-lmstudio": _lmstudio,
    "llama-index-llms-openai-like": _openai_like,
    "llama-index-llms-ollama": _ollama,
}
"""A context manager for each integration; it yields the integration, connected to a server."""
