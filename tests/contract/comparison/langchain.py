"""The other LangChain integrations, by package name; each is imported on first use."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.contract.comparison.http_server import HttpServer
from tests.contract.langchain.integration import Integration
from tests.contract.models import CHAT, EMBEDDING, UNREACHABLE


@contextmanager
def _openai() -> Iterator[Integration]:
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    def connection(address: str) -> dict[str, Any]:
        return {"base_url": f"http://{address}/v1", "api_key": "x"}

    def chat(address: str) -> Callable[..., Any]:
        settings = {"model": CHAT, "stream_usage": True, **connection(address)}
        return lambda **given: ChatOpenAI(**{**settings, **given})

    def embeddings(**given: Any) -> OpenAIEmbeddings:
        # By default texts are sent as numbers of tokens, which LM Studio rejects.
        settings = {"model": EMBEDDING, "check_embedding_ctx_length": False, **connection(server.address)}
        return OpenAIEmbeddings(**{**settings, **given})

    with HttpServer() as server:
        yield Integration(
            name="langchain-openai",
            chat=chat(server.address),
            unreachable=chat(UNREACHABLE),
            embeddings=embeddings,
            server=server.engine,
            provider="openai",
            connection=connection(server.address),
        )


def _to_ollama(given: dict[str, Any]) -> dict[str, Any]:
    """Translate the standard parameters that `langchain-ollama` documents under other names."""
    client: dict[str, Any] = {}
    if "timeout" in given:
        client["timeout"] = given.pop("timeout")
    if "api_key" in given:
        client["headers"] = {"Authorization": f"Bearer {given.pop('api_key')}"}
    if "max_tokens" in given:
        given["num_predict"] = given.pop("max_tokens")
    given.pop("max_retries", None)  # it never retries
    return {**given, **({"client_kwargs": client} if client else {})}


@contextmanager
def _ollama() -> Iterator[Integration]:
    from langchain_ollama import ChatOllama, OllamaEmbeddings

    def chat(address: str) -> Callable[..., Any]:
        settings = {"model": CHAT, "base_url": f"http://{address}", "reasoning": True}
        return lambda **given: ChatOllama(**{**settings, **_to_ollama(given)})

    def embeddings(**given: Any) -> OllamaEmbeddings:
        return OllamaEmbeddings(**{"model": EMBEDDING, "base_url": f"http://{server.address}", **_to_ollama(given)})

    with HttpServer() as server:
        yield Integration(
            name="langchain-ollama",
            chat=chat(server.address),
            unreachable=chat(UNREACHABLE),
            embeddings=embeddings,
            server=server.engine,
            provider="ollama",
            connection={"base_url": f"http://{server.address}"},
        )


PEERS: dict[str, Callable[[], Any]] = {
    "langchain-openai": _openai,
    "langchain-ollama": _ollama,
}
"""A context manager for each integration; it yields the integration, connected to a server."""
