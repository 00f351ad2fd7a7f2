"""`LMStudioEmbeddings`: LangChain embeddings over LM Studio's native protocol."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from langchain_core.embeddings import Embeddings
from pydantic import ConfigDict

from lmstudio_integrations._adapters.fitting import afitting, fitting
from lmstudio_integrations._adapters.lengths import EmbeddingRequest, LengthPolicy
from lmstudio_integrations._adapters.progress import ProgressBar
from lmstudio_integrations._adapters.retry import arepeat, repeat
from lmstudio_integrations._adapters.settings import ConnectionSettings, EmbeddingLoadConfig
from lmstudio_integrations._adapters.texts import prefixed
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain._errors import translated
from lmstudio_integrations.types._numbers import Count
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LoadPolicy, LoadSettings, ModelKind

if TYPE_CHECKING:
    from lmstudio_integrations.client.asynchronous import AsyncEmbeddingModel
    from lmstudio_integrations.client.sync import EmbeddingModel

_CHUNK_SIZE = "the text splitter's chunk size"

_STEP = 64
"""How many texts are embedded between two updates of the progress bar."""


class LMStudioEmbeddings(ConnectionSettings, Embeddings):
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
    _kind: ClassVar[ModelKind] = "embedding"
    _load_settings: ClassVar[type[LoadSettings]] = EmbeddingLoadModelConfig

    load_config: EmbeddingLoadConfig = None
    """How to load the model, if a call of this object loads it: `EmbeddingLoadModelConfig` or a dict of its fields."""

    query_prefix: str = ""
    """Prepended to the text of `embed_query`. The model card says what the model expects."""

    document_prefix: str = ""
    """Prepended to each text of `embed_documents`."""

    load_policy: LoadPolicy = "explicit"
    """`explicit` by default: an embedding model is small, and the just-in-time load of a language model beside it
    would evict it. The others are as for language models."""

    length_policy: LengthPolicy = "error"
    """What to do with a text that is too long for the model: `error` raises, `truncate` embeds its beginning, `pass`
    leaves it to the server, which may cut it silently."""

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
            server, spec, config = self._resolve_model()
            model = self._runtime.embedding(server, spec, config)
            request = EmbeddingRequest(texts, self.length_policy, _CHUNK_SIZE)
            fit = partial(fitting, model, self._runtime, (server, spec), request)
            vectors: list[list[float]] = []
            for batch in self._batches(repeat(fit, self.max_retries)):
                vectors += repeat(partial(_embed, model, batch), self.max_retries)
            return vectors if self.dimensions is None else [_shortened(each, self.dimensions) for each in vectors]

    async def _aembed(self, prefix: str, given: list[str]) -> list[list[float]]:
        with translated():
            texts = prefixed(prefix, given)
            if not texts:
                return []
            server, spec, config = self._resolve_model()
            model = self._runtime.async_embedding(server, spec, config)
            request = EmbeddingRequest(texts, self.length_policy, _CHUNK_SIZE)
            fit = partial(afitting, model, self._runtime, (server, spec), request)
            vectors: list[list[float]] = []
            for batch in self._batches(await arepeat(fit, self.max_retries)):
                vectors += await arepeat(partial(_aembed, model, batch), self.max_retries)
            return vectors if self.dimensions is None else [_shortened(each, self.dimensions) for each in vectors]

    def _batches(self, texts: list[str]) -> Iterator[list[str]]:
        """Yield all texts at once, or in batches between which the progress bar moves."""
        if not self.show_progress:
            yield texts
            return
        show = ProgressBar(f"Embedding {len(texts)} texts")
        for start in range(0, len(texts), _STEP):
            show(start / len(texts))
            yield texts[start : start + _STEP]
        show(1.0)


def _embed(model: "EmbeddingModel", texts: list[str]) -> list[list[float]]:
    return model.embed(texts)


async def _aembed(model: "AsyncEmbeddingModel", texts: list[str]) -> list[list[float]]:
    return await model.embed(texts)


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
