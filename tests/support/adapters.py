"""The adapters of both frameworks, and a call of each. Whatever holds for all adapters is tested with this list."""

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
        method: The method that makes a call with a text.
        async_method: The same for coroutines.
    """

    make: Any
    framework: Framework
    kind: Kind
    method: str
    async_method: str

    def call(self, model: Any, text: str, **given: Any) -> Any:
        """Make a call with settings of its own."""
        return getattr(model, self.method)(text, **given)

    async def acall(self, model: Any, text: str, **given: Any) -> Any:
        """Make the same call without blocking."""
        return await getattr(model, self.async_method)(text, **given)


ADAPTERS = {
    "ChatLMStudio": Adapter(ChatLMStudio, "LangChain", "chat", "invoke", "ainvoke"),
    "LMStudioLLM": Adapter(LMStudioLLM, "LangChain", "text", "invoke", "ainvoke"),
    "LMStudioEmbeddings": Adapter(LMStudioEmbeddings, "LangChain", "embedding", "embed_query", "aembed_query"),
    "LMStudio": Adapter(LMStudio, "LlamaIndex", "chat", "complete", "acomplete"),
    "LMStudioEmbedding": Adapter(
        LMStudioEmbedding, "LlamaIndex", "embedding", "get_query_embedding", "aget_query_embedding"
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
