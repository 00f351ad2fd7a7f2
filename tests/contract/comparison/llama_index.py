"""The other LlamaIndex integrations, by package name; each is imported on first use."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.contract.comparison.http_server import HttpServer
from tests.contract.llama_index import Integration, with_instruction
from tests.contract.models import CHAT, EMBEDDING, UNREACHABLE


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
        return OllamaEmbedding(model_name=EMBEDDING, base_url=f"http://{server.address}", **with_instruction(given))

    with HttpServer() as server:
        yield Integration(llm(server.address), llm(UNREACHABLE), embedding, server.engine)


PEERS: dict[str, Callable[[], Any]] = {
    "llama-index-llms-lmstudio": _lmstudio,
    "llama-index-llms-openai-like": _openai_like,
    "llama-index-llms-ollama": _ollama,
}
"""A context manager for each integration; it yields the integration, connected to a server."""
