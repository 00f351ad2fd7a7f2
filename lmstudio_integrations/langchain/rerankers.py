"""`LMStudioReranker`: sorts retrieved documents in LangChain with a language model over LM Studio's native protocol."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field

from lmstudio_integrations._adapters.request_model import AdapterNames
from lmstudio_integrations._adapters.settings_decision import RerankerSettings
from lmstudio_integrations._support.text import shown
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain._errors import translating_errors
from lmstudio_integrations.types._numbers import Fraction
from lmstudio_integrations.types.reranking import RerankResult


class LMStudioReranker(RerankerSettings, BaseDocumentCompressor):
    """Sort retrieved documents by how relevant they are, with a model in LM Studio.

    Each document is one call, in which the model generates one token: the scores are the probabilities of yes and no.
    The object holds settings, described in `model_fields`, and opens no connection before its first call. You can copy
    it, pickle it, and share it between threads and event loops. Rerankers of the Qwen3 kind are asked as they were
    trained, other language models in their chat template. The page `docs/langchain/embeddings.md` goes on to
    retrievers.

    Setup:
        Install the package with its extra: `pip install "lmstudio-integrations[langchain]"`. Start LM Studio, or
        `lmsi serve`. `LMSTUDIO_HOST` and `LM_API_TOKEN` select another server.

    Example:
        ```python
        from langchain_core.documents import Document

        from lmstudio_integrations.langchain import LMStudioReranker

        reranker = LMStudioReranker(model="qwen3-reranker-0.6b", top_n=2)
        texts = ["The pool costs four euros.", "The ferry takes an hour."]
        documents = [Document(text) for text in texts]
        for document in reranker.compress_documents(documents, "What does a swim cost?"):
            print(document.metadata["relevance_score"], document.page_content)
        ```
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    _adapters: ClassVar[AdapterNames] = (("llm", "LMStudioReranker"),)
    _translating = translating_errors

    score_threshold: Fraction | None = Field(
        default=None,
        description="Drop documents that have a lower score, from 0 to 1, or none. By default none is dropped.",
    )

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - LangChain's
    ) -> Sequence[Document]:
        """Return copies of documents, best first, with their `relevance_score` in the metadata.

        Args:
            documents: The documents.
            query: The query.
            callbacks: Not used.

        Raises:
            LMStudioValueError: If one is no document.
        """
        with translating_errors():
            results = self._rerank(query, _texts(documents))
        return self._rank(documents, results)

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - LangChain's
    ) -> Sequence[Document]:
        """Return copies of documents, best first; see `compress_documents`."""
        with translating_errors():
            results = await self._arerank(query, _texts(documents))
        return self._rank(documents, results)

    def _rank(self, documents: Sequence[Document], results: Iterable[RerankResult]) -> list[Document]:
        least = self.score_threshold
        sufficient = [each for each in results if least is None or (each.score is not None and each.score >= least)]
        return [
            documents[each.index].model_copy(
                update={"metadata": {**documents[each.index].metadata, "relevance_score": each.score}}
            )
            for each in sufficient
        ]


def _texts(documents: Iterable[object]) -> list[str]:
    """Return the texts of documents.

    Raises:
        LMStudioValueError: If one is no document.
    """
    texts: list[str] = []
    for index, document in enumerate(documents):
        if not isinstance(document, Document):
            example = shown(document) if isinstance(document, str) else "'…'"
            raise LMStudioValueError(
                f"documents must be Documents; got {shown(document)} at index {index}; write Document({example})"
            )
        texts.append(document.page_content)
    return texts
