"""LM Studio in LangChain: chat models, raw completion and embeddings over the native protocol.

Needs the extra: `pip install "lmstudio-integrations[langchain]"`. The classes are imported when they are first asked
for, so that embeddings do not pay for chat models.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmstudio_integrations.langchain.chat_models import ChatLMStudio as ChatLMStudio
    from lmstudio_integrations.langchain.embeddings import LMStudioEmbeddings as LMStudioEmbeddings
    from lmstudio_integrations.langchain.llms import LMStudioLLM as LMStudioLLM

__all__ = ["ChatLMStudio", "LMStudioEmbeddings", "LMStudioLLM"]

_MODULES = {"ChatLMStudio": "chat_models", "LMStudioEmbeddings": "embeddings", "LMStudioLLM": "llms"}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "langchain_core":
            raise
        raise ModuleNotFoundError(
            f'{name} needs langchain-core; run: pip install "lmstudio-integrations[langchain]"', name=error.name
        ) from error
    return getattr(found, name)


def __dir__() -> list[str]:
    return __all__
