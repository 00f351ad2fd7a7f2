"""The adapters of both frameworks, and a call of each. Whatever holds for all adapters is tested with this list."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import cycle
from types import ModuleType
from typing import Any, Literal, TypeAlias, TypeVar

from langchain_core.decisions import Noul
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from lmstudio_integrations import langchain, llama_index
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

Framework: TypeAlias = Literal["LangChain", "LlamaIndex"]
Way = TypeVar("Way")
Case = TypeVar("Case")
Kind: TypeAlias = Literal["chat", "text", "embedding", "reranker", "classifier"]

TEXT = "The ferry takes twenty minutes."

DECIDES: dict[str, Any] = {
    "when": {"last": "Answer with (one word|the letter)"},
    "then": [{"probabilities": {"yes": 0.9, "A": 0.1}}],
}
"""The rule of a scripted model that a classifier asks, where other rules would answer with text."""


@dataclass(frozen=True)
class Adapter:
    """An adapter.

    Attributes:
        make: The class.
        framework: The framework.
        kind: What its models do.
        method: The method that makes a call with a text.
        async_method: The same for coroutines.
        arguments: Makes the arguments of the method from the text.
    """

    make: Any
    framework: Framework
    kind: Kind
    method: str
    async_method: str
    arguments: Callable[[str], tuple[Any, ...]] = lambda text: (text,)

    @property
    def name(self) -> str:
        """The name of the class."""
        return str(self.make.__name__)

    @property
    def takes_settings(self) -> bool:
        """Whether a call takes settings of its own."""
        return self.kind in {"chat", "text"}

    def call(self, model: Any, /, text: str, **given: Any) -> Any:
        """Make a call with settings of its own."""
        return getattr(model, self.method)(*self.arguments(text), **given)

    async def acall(self, model: Any, /, text: str, **given: Any) -> Any:
        """Make the same call without blocking."""
        return await getattr(model, self.async_method)(*self.arguments(text), **given)


def _class(package: ModuleType, name: str) -> Any:
    """Return a public class; `None` if its part of the package was deleted."""
    try:
        return getattr(package, name)
    except ImportError:
        return None


_ADAPTERS = {
    "ChatLMStudio": Adapter(ChatLMStudio, "LangChain", "chat", "invoke", "ainvoke"),
    "LMStudioLLM": Adapter(LMStudioLLM, "LangChain", "text", "invoke", "ainvoke"),
    "LMStudioEmbeddings": Adapter(LMStudioEmbeddings, "LangChain", "embedding", "embed_query", "aembed_query"),
    "LMStudioReranker": Adapter(
        _class(langchain, "LMStudioReranker"),
        "LangChain",
        "reranker",
        "compress_documents",
        "acompress_documents",
        lambda text: ([Document(TEXT)], text),
    ),
    "LMStudioClassifier": Adapter(
        _class(langchain, "LMStudioClassifier"),
        "LangChain",
        "classifier",
        "invoke",
        "ainvoke",
        lambda text: ({"state": text, "questions": {"yes": Noul(instructions="Is it so?")}},),
    ),
    "LMStudio": Adapter(LMStudio, "LlamaIndex", "chat", "complete", "acomplete"),
    "LMStudioEmbedding": Adapter(
        LMStudioEmbedding, "LlamaIndex", "embedding", "get_query_embedding", "aget_query_embedding"
    ),
    "llama_index.LMStudioReranker": Adapter(
        _class(llama_index, "LMStudioReranker"),
        "LlamaIndex",
        "reranker",
        "postprocess_nodes",
        "apostprocess_nodes",
        lambda text: ([NodeWithScore(node=TextNode(text=TEXT))], QueryBundle(text)),
    ),
    "LMStudioSelector": Adapter(
        _class(llama_index, "LMStudioSelector"),
        "LlamaIndex",
        "classifier",
        "select",
        "aselect",
        lambda text: (["yes"], text),
    ),
    "LMStudioEvaluator": Adapter(
        _class(llama_index, "LMStudioEvaluator"),
        "LlamaIndex",
        "classifier",
        "evaluate",
        "aevaluate",
        lambda text: (text,),
    ),
}
"""The adapters by their names. A new one is added here."""

ADAPTERS = {name: adapter for name, adapter in _ADAPTERS.items() if adapter.make is not None}
"""Those that this copy of the package has."""

_TOOLKITS = (_class(langchain, "LMStudioToolkit"), _class(llama_index, "LMStudioToolSpec"))

TOOLKITS = [each for each in _TOOLKITS if each is not None]
"""The classes with the tools of plugins that this copy of the package has."""

EMBEDDING_MODELS = {name: each for name, each in ADAPTERS.items() if each.kind == "embedding"}
RERANKERS = {name: each for name, each in ADAPTERS.items() if each.kind == "reranker"}
CLASSIFIERS = {name: each for name, each in ADAPTERS.items() if each.kind == "classifier"}
LANGUAGE_MODELS = {name: each for name, each in ADAPTERS.items() if each.takes_settings}


def classes(framework: Framework | None = None, kind: Kind | None = None) -> list[Any]:
    """Return the classes of the adapters, of all or of one framework or kind."""
    return [
        each.make for each in ADAPTERS.values() if framework in {None, each.framework} and kind in {None, each.kind}
    ]


def covering(ways: Iterable[Way], cases: Iterable[Case]) -> list[tuple[Way, Case]]:
    """Return rows of a test: every way with the first case, and every other case with one of the ways in turn."""
    every, (first, *others) = [*ways], cases
    return [*((way, first) for way in every), *zip(cycle(every), others, strict=False)]
