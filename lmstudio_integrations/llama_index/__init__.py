"""LM Studio in LlamaIndex: language models and embeddings over the native protocol.

Needs the extra: `pip install "lmstudio-integrations[llama-index]"`. The classes are imported when they are first asked
for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmstudio_integrations.llama_index._errors import LlamaIndexToolCallError as LlamaIndexToolCallError
    from lmstudio_integrations.llama_index.embeddings import LMStudioEmbedding as LMStudioEmbedding
    from lmstudio_integrations.llama_index.llms import LMStudio as LMStudio
    from lmstudio_integrations.llama_index.tokenizer import LMStudioTokenizer as LMStudioTokenizer

__all__ = ["LMStudio", "LMStudioEmbedding", "LMStudioTokenizer", "LlamaIndexToolCallError"]

_MODULES = {
    "LMStudio": "llms",
    "LMStudioEmbedding": "embeddings",
    "LMStudioTokenizer": "tokenizer",
    "LlamaIndexToolCallError": "_errors",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "llama_index":
            raise
        raise ModuleNotFoundError(
            f'{name} needs llama-index-core; run: pip install "lmstudio-integrations[llama-index]"', name=error.name
        ) from error
    return getattr(found, name)


def __dir__() -> list[str]:
    return __all__
