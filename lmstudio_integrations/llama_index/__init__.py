"""LM Studio in LlamaIndex: language models, embeddings, rerankers and tools over the native protocol.

Needs the `llama-index` extra. The classes are imported when they are first asked for. After `register()`, LlamaIndex
also loads them from what `to_dict` wrote, such as the model of an extractor.
"""

from typing import TYPE_CHECKING, Any

from lmstudio_integrations._adapters.lazy import public_name

if TYPE_CHECKING:
    from lmstudio_integrations.llama_index._errors import LlamaIndexToolCallError as LlamaIndexToolCallError
    from lmstudio_integrations.llama_index._registration import register as register
    from lmstudio_integrations.llama_index.embeddings import LMStudioEmbedding as LMStudioEmbedding
    from lmstudio_integrations.llama_index.llms import LMStudio as LMStudio
    from lmstudio_integrations.llama_index.rerankers import LMStudioReranker as LMStudioReranker
    from lmstudio_integrations.llama_index.tokenizer import LMStudioTokenizer as LMStudioTokenizer
    from lmstudio_integrations.llama_index.tool_spec import LMStudioToolSpec as LMStudioToolSpec

__all__ = [
    "LMStudio",
    "LMStudioEmbedding",
    "LMStudioReranker",
    "LMStudioTokenizer",
    "LMStudioToolSpec",
    "LlamaIndexToolCallError",
    "register",
]

_MODULES = {
    "LMStudio": "llms",
    "LMStudioEmbedding": "embeddings",
    "LMStudioReranker": "rerankers",
    "LMStudioTokenizer": "tokenizer",
    "LMStudioToolSpec": "tool_spec",
    "LlamaIndexToolCallError": "_errors",
    "register": "_registration",
}


def __getattr__(name: str) -> Any:
    return public_name(
        __name__, _MODULES, name, framework="llama_index", distribution="llama-index-core", extra="llama-index"
    )


def __dir__() -> list[str]:
    return __all__
