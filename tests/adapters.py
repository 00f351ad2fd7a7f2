"""The adapters of both frameworks, and a call of each. Whatever holds for all adapters is tested with this list."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

Framework: TypeAlias = Literal["LangChain", "LlamaIndex"]
Kind: TypeAlias = Literal["chat", "text", "embedding"]


@dataclass(frozen=True)
class Adapter:
    """An adapter.

    Attributes:
        make: The class.
        framework: The framework.
        kind: What its models do.
        call: Makes a call with a text and the settings of the call.
        acall: Makes the same call without blocking.
    """

    make: Any
    framework: Framework
    kind: Kind
    call: Callable[..., Any]
    acall: Callable[..., Awaitable[Any]]


ADAPTERS = {
    "ChatLMStudio": Adapter(
        ChatLMStudio,
        "LangChain",
        "chat",
        lambda llm, text, **given: llm.invoke(text, **given),
        lambda llm, text, **given: llm.ainvoke(text, **given),
    ),
    "LMStudioLLM": Adapter(
        LMStudioLLM,
        "LangChain",
        "text",
        lambda llm, text, **given: llm.invoke(text, **given),
        lambda llm, text, **given: llm.ainvoke(text, **given),
    ),
    "LMStudioEmbeddings": Adapter(
        LMStudioEmbeddings,
        "LangChain",
        "embedding",
        lambda model, text: model.embed_query(text),
        lambda model, text: model.aembed_query(text),
    ),
    "LMStudio": Adapter(
        LMStudio,
        "LlamaIndex",
        "chat",
        lambda llm, text, **given: llm.complete(text, **given),
        lambda llm, text, **given: llm.acomplete(text, **given),
    ),
    "LMStudioEmbedding": Adapter(
        LMStudioEmbedding,
        "LlamaIndex",
        "embedding",
        lambda model, text: model.get_query_embedding(text),
        lambda model, text: model.aget_query_embedding(text),
    ),
}
"""Every adapter by its name. A new one is added here."""

EMBEDDING_MODELS = {name: each for name, each in ADAPTERS.items() if each.kind == "embedding"}
LANGUAGE_MODELS = {name: each for name, each in ADAPTERS.items() if each.kind != "embedding"}


def classes(framework: Framework | None = None, kind: Kind | None = None) -> list[Any]:
    """Return the classes of the adapters, of all or of one framework or kind."""
    return [
        each.make for each in ADAPTERS.values() if framework in {None, each.framework} and kind in {None, each.kind}
    ]
