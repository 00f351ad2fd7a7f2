"""LM Studio in LangChain: chat models, completion, embeddings, rerankers, decisions and tools over the native protocol.

Needs the `langchain` extra. The classes are imported when they are first asked for, so that
embeddings do not pay for chat models.
"""

from typing import TYPE_CHECKING, Any

from lmstudio_integrations._support.installation import public_name

if TYPE_CHECKING:
    from lmstudio_integrations.langchain._registration import register as register
    from lmstudio_integrations.langchain.chat_models import ChatLMStudio as ChatLMStudio
    from lmstudio_integrations.langchain.classifiers import LMStudioClassifier as LMStudioClassifier
    from lmstudio_integrations.langchain.embeddings import LMStudioEmbeddings as LMStudioEmbeddings
    from lmstudio_integrations.langchain.llms import LMStudioLLM as LMStudioLLM
    from lmstudio_integrations.langchain.rerankers import LMStudioReranker as LMStudioReranker
    from lmstudio_integrations.langchain.toolkit import LMStudioToolkit as LMStudioToolkit

__all__ = [
    "ChatLMStudio",
    "LMStudioClassifier",
    "LMStudioEmbeddings",
    "LMStudioLLM",
    "LMStudioReranker",
    "LMStudioToolkit",
    "register",
]

_MODULES = {
    "ChatLMStudio": "chat_models",
    "LMStudioClassifier": "classifiers",
    "LMStudioEmbeddings": "embeddings",
    "LMStudioLLM": "llms",
    "LMStudioReranker": "rerankers",
    "LMStudioToolkit": "toolkit",
    "register": "_registration",
}

_COUNTERPARTS = {
    "LMStudio": "ChatLMStudio",
    "LMStudioEmbedding": "LMStudioEmbeddings",
    "LMStudioToolSpec": "LMStudioToolkit",
}
"""Names that are those of LlamaIndex's adapters."""


def __getattr__(name: str) -> Any:
    return public_name(
        __name__,
        _MODULES,
        name,
        framework="langchain_core",
        distribution="langchain-core",
        extra="langchain",
        versions={"LMStudioClassifier": "1.8"},
        counterparts=_COUNTERPARTS,
    )


def __dir__() -> list[str]:
    return __all__
