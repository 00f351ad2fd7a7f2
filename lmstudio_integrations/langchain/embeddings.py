"""`LMStudioEmbeddings`: LangChain embeddings over LM Studio's native protocol."""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

from langchain_core.embeddings import Embeddings
from pydantic import ConfigDict

from lmstudio_integrations._adapters.progress import bar
from lmstudio_integrations._adapters.runtime import Server, Wanted
from lmstudio_integrations._adapters.settings import ConnectionSettings, EmbeddingLoadConfig
from lmstudio_integrations._adapters.texts import prefixed
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain._errors import translated
from lmstudio_integrations.types._numbers import Count
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LoadPolicy, LoadSettings, ModelKind
from lmstudio_integrations.types.embeddings import EmbeddingRequest, LengthPolicy

_CHUNK_SIZE = "the text splitter's chunk size"


class LMStudioEmbeddings(ConnectionSettings, Embeddings):
    """Embed texts with a model in LM Studio.

    The object is configuration only: making one costs no connection, and it can be copied, pickled, shared by threads
    and by event loops. Many texts are sent ahead of the answers, so their order and number do not matter.

    Example:
        ```python
        from lmstudio_integrations.langchain import LMStudioEmbeddings

        embeddings = LMStudioEmbeddings(model="text-embedding-nomic-embed-text-v1.5", query_prefix="search_query: ")
        vector = embeddings.embed_query("Why is the sky blue?")
        ```
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", defer_build=True)
    _kind: ClassVar[ModelKind] = "embedding"
    _load_settings: ClassVar[type[LoadSettings]] = EmbeddingLoadModelConfig

    load_config: EmbeddingLoadConfig = None
    """How to load the model, if a call of this object loads it: `EmbeddingLoadModelConfig` or a dict of its fields."""

    query_prefix: str = ""
    """Put before the text of `embed_query`; what it must be, the model's card says."""

    document_prefix: str = ""
    """Put before each text of `embed_documents`."""

    load_policy: LoadPolicy = "explicit"
    """`explicit` by default: an embedding model is small, and used beside a language model, whose just-in-time load
    would evict it. See `LoadPolicy` of the language models for the others."""

    length_policy: LengthPolicy = "error"
    """What to do with a text that is too long for the model: `error`; `truncate` embeds its beginning; `pass` leaves it
    to the server, which may cut it silently."""

    dimensions: Count | None = None
    """Shorten vectors to so many numbers and bring them to length 1 again; only for models trained for it."""

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question."""
        return self._embed(self.query_prefix, [text])[0]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts, in their order."""
        return self._embed(self.document_prefix, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Return the vector of a question."""
        return (await self._aembed(self.query_prefix, [text]))[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts, in their order."""
        return await self._aembed(self.document_prefix, texts)

    def _embed(self, prefix: str, given: list[str]) -> list[list[float]]:
        with translated():
            texts = prefixed(prefix, given)
            if not texts:
                return []
            model = self._runtime.embedding(*self._settled()).with_retries(self.max_retries)
            request = EmbeddingRequest(texts, self.length_policy, _CHUNK_SIZE)
            return self._shaped(model.embed_texts(request, on_progress=self._bar(texts)))

    async def _aembed(self, prefix: str, given: list[str]) -> list[list[float]]:
        with translated():
            texts = prefixed(prefix, given)
            if not texts:
                return []
            model = self._runtime.async_embedding(*self._settled()).with_retries(self.max_retries)
            request = EmbeddingRequest(texts, self.length_policy, _CHUNK_SIZE)
            return self._shaped(await model.embed_texts(request, on_progress=self._bar(texts)))

    def _settled(self) -> tuple[Server, Wanted, LoadSettings | None]:
        values = vars(self)
        config = self._load_config(values)
        return self._server(values, self._runtime), self._wanted(values, config), config

    def _bar(self, texts: Sequence[str]) -> Callable[[float], None] | None:
        return bar(f"Embedding {len(texts)} texts") if self.show_progress else None

    def _shaped(self, vectors: list[list[float]]) -> list[list[float]]:
        if self.dimensions is None:
            return vectors
        return [_shortened(vector, self.dimensions) for vector in vectors]


def _shortened(vector: Sequence[float], dimensions: int) -> list[float]:
    """Return the first numbers of a vector, brought to length 1.

    Raises:
        LMStudioValueError: If it has fewer.
    """
    if dimensions > len(vector):
        raise LMStudioValueError(f"dimensions={dimensions}, but the model's vectors have {len(vector)} numbers")
    head = vector[:dimensions]
    length = math.hypot(*head) or 1.0
    return [number / length for number in head]
