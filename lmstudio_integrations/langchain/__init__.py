"""LM Studio in LangChain: chat models, completion, embeddings, rerankers, decisions and tools over the native protocol.

Needs the `langchain` extra. The classes are imported when they are first asked for, so that
embeddings do not pay for chat models.
"""

from typing import Any

from lmstudio_integrations._support.installation import public_name

_MODULES = {
    "ChatLMStudio": "chat_models",
    "LMStudioClassifier": "classifiers",
    "LMStudioEmbeddings": "embeddings",
    "LMStudioLLM": "llms",
    "LMStudioReranker": "rerankers",
    "LMStudioToolkit": "toolkit",
    "register": "_registration",
}
"""The module of each public name. Type checkers read `__init__.pyi`, which `python -m tools.stub` writes from it."""

__all__ = list(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll] - others read the stub


def __getattr__(name: str) -> Any:
    return public_name(
        __name__,
        _MODULES,
        name,
        framework="langchain_core",
        distribution="langchain-core",
        extra="langchain",
        versions={"LMStudioClassifier": "1.8"},
    )


def __dir__() -> list[str]:
    return __all__
