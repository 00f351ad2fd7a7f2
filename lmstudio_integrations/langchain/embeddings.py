"""`LMStudioEmbeddings`: LangChain embeddings over LM Studio's native protocol."""

import math
from collections.abc import Sequence
from typing import ClassVar

from langchain_core.embeddings import Embeddings
from pydantic import ConfigDict

from lmstudio_integrations._adapters.embedding_settings import EmbeddingSettings, prefixed
from lmstudio_integrations._adapters.progress import ProgressBar
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain._errors import translated
from lmstudio_integrations.types._numbers import Count
from lmstudio_integrations.types.embedding_request import EmbeddingRequest

_CHUNK_SIZE = "the text splitter's chunk size"


class LMStudioEmbeddings(EmbeddingSettings, Embeddings):
    """Embed texts with a model in LM Studio.

    The object is configuration only: making one opens no connection, and it can be copied, pickled, and shared by
    threads and event loops. Texts are sent without
    waiting for the vectors of the ones before.

    Example:
        ```python
        from lmstudio_integrations.langchain import LMStudioEmbeddings

        embeddings = LMStudioEmbeddings(model="text-embedding-nomic-embed-text-v1.5", query_prefix="search_query: ")
        vector = embeddings.embed_query("Why is the sky blue?")
        ```
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", defer_build=True)

    query_prefix: str = ""
    """Prepended to the text of `embed_query`. The model card says what the model expects."""

    document_prefix: str = ""
    """Prepended to each text of `embed_documents`."""

    dimensions: Count | None = None
    """Shorten vectors to this many numbers and normalize them again. Only for models that were trained for it."""

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        return self._embed(self.query_prefix, [text])[0]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts, in order."""
        return self._embed(self.document_prefix, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        return (await self._aembed(self.query_prefix, [text]))[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts, in order."""
        return await self._aembed(self.document_prefix, texts)

    def _embed(self, prefix: str, given: list[str]) -> list[list[float]]:
        with translated():
            texts = prefixed(prefix, given)
            if not texts:
                return []
            request = EmbeddingRequest(texts, self.length_policy, _CHUNK_SIZE)
            return self._shaped(self._model().embed_texts(request, on_progress=self._progress_bar(texts)))

    async def _aembed(self, prefix: str, given: list[str]) -> list[list[float]]:
        with translated():
            texts = prefixed(prefix, given)
            if not texts:
                return []
            request = EmbeddingRequest(texts, self.length_policy, _CHUNK_SIZE)
            return self._shaped(await self._async_model().embed_texts(request, on_progress=self._progress_bar(texts)))

    def _progress_bar(self, texts: Sequence[str]) -> ProgressBar | None:
        return ProgressBar(f"Embedding {len(texts)} texts") if self.show_progress else None

    def _shaped(self, vectors: list[list[float]]) -> list[list[float]]:
        if self.dimensions is None:
            return vectors
        return [_shortened(vector, self.dimensions) for vector in vectors]


def _shortened(vector: Sequence[float], dimensions: int) -> list[float]:
    """Return the first numbers of a vector, normalized to length 1.

    Raises:
        LMStudioValueError: If it has fewer.
    """
    if dimensions > len(vector):
        raise LMStudioValueError(f"dimensions={dimensions}, but the model's vectors have {len(vector)} numbers")
    head = vector[:dimensions]
    length = math.hypot(*head) or 1.0
    return [number / length for number in head]
