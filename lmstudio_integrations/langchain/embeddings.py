"""`LMStudioEmbeddings`: LangChain embeddings over LM Studio's native protocol."""

from typing import ClassVar

from langchain_core.embeddings import Embeddings
from pydantic import ConfigDict, Field

from lmstudio_integrations._adapters.request_model import AdapterNames
from lmstudio_integrations._adapters.settings_embedding import PREFIX, EmbeddingSettings, check_text, check_texts
from lmstudio_integrations._adapters.settings_types import MODEL_NAME
from lmstudio_integrations.client.embeddings import EmbeddingRequest
from lmstudio_integrations.langchain._errors import AUXILIARY_ADAPTERS, translating_errors

_CHUNK_SIZE = "the text splitter's chunk size"


class LMStudioEmbeddings(EmbeddingSettings, Embeddings):
    """Embed texts with a model in LM Studio.

    The object holds settings, described in `model_fields`, and opens no connection before its first call. You can copy
    it, pickle it, and share it between threads and event loops. Several texts are sent at a time. The model card says
    which prefixes a model expects. The page `docs/langchain/embeddings.md` goes on to searches.

    Setup:
        Install the package with its extra: `pip install "lmstudio-integrations[langchain]"`. Start LM Studio, or
        `lmsi serve`. `LMSTUDIO_HOST` and `LM_API_TOKEN` select another server.

    Example:
        ```python
        from lmstudio_integrations.langchain import LMStudioEmbeddings

        embeddings = LMStudioEmbeddings(model="text-embedding-all-minilm-l6-v2")
        vectors = embeddings.embed_documents(["The ferry takes twenty minutes."])
        print(len(vectors), len(embeddings.embed_query("How long does the ferry take?")))
        ```
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    _adapters: ClassVar[AdapterNames] = (("llm", "ChatLMStudio"), *AUXILIARY_ADAPTERS)
    _translating = translating_errors

    model_name = MODEL_NAME
    """Another name of `model`."""

    _prefix_fields: ClassVar[tuple[str, str]] = ("query_prefix", "document_prefix")

    query_prefix: str | None = Field(default=None, description=PREFIX.format("query"))

    document_prefix: str | None = Field(default=None, description=PREFIX.format("document"))

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        with translating_errors():
            return self._embed(self.prefixes.query, [check_text(text, "embed_documents")])[0]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts, in order."""
        with translating_errors():
            return self._embed(self.prefixes.document, check_texts(texts))

    async def aembed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        with translating_errors():
            return (await self._aembed(self.prefixes.query, [check_text(text, "aembed_documents")]))[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts, in order."""
        with translating_errors():
            return await self._aembed(self.prefixes.document, check_texts(texts))

    def _request(self, prefix: str, texts: list[str]) -> EmbeddingRequest:
        shown = self.show_progress is True
        return EmbeddingRequest(texts, self.length_policy, _CHUNK_SIZE, prefix, show_progress=shown)
