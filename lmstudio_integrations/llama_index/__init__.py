"""LM Studio in LlamaIndex: language models, embeddings, rerankers, decisions and tools over the native protocol.

Needs the `llama-index` extra. The classes are imported when they are first asked for. After `register()`, LlamaIndex
also loads them from what `to_dict` wrote, such as the model of an extractor.
"""

from typing import Any

from lmstudio_integrations._support.installation import public_name

_MODULES = {
    "LMStudio": "llms",
    "LMStudioEmbedding": "embeddings",
    "LMStudioEvaluator": "decisions",
    "LMStudioReranker": "rerankers",
    "LMStudioSelector": "decisions",
    "LMStudioTokenizer": "tokenizer",
    "LMStudioToolSpec": "tool_spec",
    "LlamaIndexToolCallError": "_errors",
    "register": "_registration",
}
"""The module of each public name. Type checkers read `__init__.pyi`, which `python -m tools.stub` writes from it."""

__all__ = list(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll] - others read the stub


def __getattr__(name: str) -> Any:
    return public_name(
        __name__,
        _MODULES,
        name,
        framework="llama_index",
        distribution="llama-index-core",
        extra="llama-index",
    )


def __dir__() -> list[str]:
    return __all__
