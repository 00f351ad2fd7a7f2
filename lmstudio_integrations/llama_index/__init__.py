"""LM Studio in LlamaIndex: language models, embeddings, rerankers, decisions and tools over the native protocol.

Needs the `llama-index` extra. The classes are imported when they are first asked for. After `register()`, LlamaIndex
also loads them from what `to_dict` wrote, such as the model of an extractor.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmstudio_integrations._support.installation import public_name

if TYPE_CHECKING:
    from lmstudio_integrations.llama_index._errors import LlamaIndexToolCallError as LlamaIndexToolCallError
    from lmstudio_integrations.llama_index.decisions import LMStudioEvaluator as LMStudioEvaluator
    from lmstudio_integrations.llama_index.decisions import LMStudioSelector as LMStudioSelector
    from lmstudio_integrations.llama_index.embeddings import LMStudioEmbedding as LMStudioEmbedding
    from lmstudio_integrations.llama_index.llms import LMStudio as LMStudio
    from lmstudio_integrations.llama_index.rerankers import LMStudioReranker as LMStudioReranker
    from lmstudio_integrations.llama_index.tokenizer import LMStudioTokenizer as LMStudioTokenizer
    from lmstudio_integrations.llama_index.tool_spec import LMStudioToolSpec as LMStudioToolSpec

__all__ = [
    "LMStudio",
    "LMStudioEmbedding",
    "LMStudioEvaluator",
    "LMStudioReranker",
    "LMStudioSelector",
    "LMStudioTokenizer",
    "LMStudioToolSpec",
    "LlamaIndexToolCallError",
    "register",
]

_MODULES = {
    "LMStudio": "llms",
    "LMStudioEmbedding": "embeddings",
    "LMStudioEvaluator": "decisions",
    "LMStudioReranker": "rerankers",
    "LMStudioSelector": "decisions",
    "LMStudioTokenizer": "tokenizer",
    "LMStudioToolSpec": "tool_spec",
    "LlamaIndexToolCallError": "_errors",
}

_COUNTERPARTS = {
    "ChatLMStudio": "LMStudio",
    "LMStudioLLM": "LMStudio",
    "LMStudioEmbeddings": "LMStudioEmbedding",
    "LMStudioToolkit": "LMStudioToolSpec",
}
"""Names that are those of LangChain's adapters."""

_TABLES = {
    "LMStudio": ("llama_index.core.llms.loading", "RECOGNIZED_LLMS"),
    "LMStudioEmbedding": ("llama_index.core.embeddings.loading", "RECOGNIZED_EMBEDDINGS"),
}
"""Each class that core can load, and the table that it is entered in: the module and its name."""


def __getattr__(name: str) -> Any:
    return public_name(
        __name__,
        _MODULES,
        name,
        framework="llama_index",
        distribution="llama-index-core",
        extra="llama-index",
        counterparts=_COUNTERPARTS,
    )


def __dir__() -> list[str]:
    return __all__


def register() -> None:
    """Let LlamaIndex's `load_llm` and `load_embed_model` make `LMStudio` and `LMStudioEmbedding`, in this process.

    They take what `to_dict` wrote, or a dict such as `{"class_name": "LMStudio", "model": "qwen3-4b"}`. So do the
    extractors and pipelines of LlamaIndex, whose dumps contain a model. It may be called again.

    Raises:
        ModuleNotFoundError: If `llama-index-core` is not installed.
    """
    for name, (module, table) in _TABLES.items():  # imported only now: they import OpenAI's packages, if there are any
        model = __getattr__(name)  # says what to install
        getattr(import_module(module), table)[model.class_name()] = model
