"""`LMStudioEmbedding`: a LlamaIndex embedding model over LM Studio's native protocol."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Self

from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import ConfigDict, Field, SecretStr

from lmstudio_integrations._adapters.request_model import AdapterNames
from lmstudio_integrations._adapters.settings_embedding import (
    LENGTH_POLICY,
    PREFIX,
    EmbeddingSettings,
    check_text,
    check_texts,
)
from lmstudio_integrations._adapters.settings_types import api_token_field
from lmstudio_integrations.client.embeddings import EmbeddingRequest, LengthPolicy
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.llama_index._settings import (
    CORE_DESCRIPTIONS,
    ComponentSettings,
    without_span,
)
from lmstudio_integrations.types._numbers import Int

_NAMES = ("model", "model_name")
_UNNAMED = "unknown"
"""Core's name of a model without a name; here, any loaded model."""

_CHUNK_SIZE = "Settings.chunk_size, or the node parser's chunk_size,"
_MANY, _AMANY = "get_text_embedding_batch", "aget_text_embedding_batch"

_all_texts: ContextVar[Sequence[str]] = ContextVar("_all_texts", default=())
"""The list that core splits into batches, for errors that name the index of a text."""


BATCHES_AT_ONCE = 4
"""Batches of one model that are in flight at once; each has up to 32 texts in flight."""


@contextmanager
def _in_batches(texts: object, prefix: str = "") -> Generator[list[str]]:
    """Provide texts with their prefix; errors in the block name their index."""
    checked_texts = check_texts(texts)
    before = _all_texts.set(checked_texts)
    try:
        yield [prefix + text for text in checked_texts]
    finally:
        _all_texts.reset(before)


def _under_both_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model under our name and under core's.

    Raises:
        LMStudioValueError: If the two differ.
    """
    models = [values[name] for name in _NAMES if values.get(name) not in (None, _UNNAMED)]
    if any(name != models[0] for name in models):
        raise LMStudioValueError(f"model and model_name are one setting; got {models}")
    return {"model": models[0], "model_name": models[0]} if models else {"model": None, "model_name": _UNNAMED}


class LMStudioEmbedding(EmbeddingSettings, ComponentSettings, BaseEmbedding):
    """Embed texts with a model in LM Studio.

    The object holds settings, described in `model_fields`, and opens no connection before its first call. You can copy
    it, pickle it, and share it between threads and event loops. You do not need `num_workers`: requests run in
    parallel, as many as the model allows. The model card says which prefixes a model expects. The page
    `docs/llama-index/embedding.md` goes on to indexes.

    Setup:
        Install the package with its extra: `pip install "lmstudio-integrations[llama-index]"`. Start LM Studio, or
        `lmsi serve`. `LMSTUDIO_HOST` and `LM_API_TOKEN` select another server.

    Example:
        ```python
        from lmstudio_integrations.llama_index import LMStudioEmbedding

        embed_model = LMStudioEmbedding(model="text-embedding-all-minilm-l6-v2")
        vectors = embed_model.get_text_embedding_batch(["The ferry takes twenty minutes."])
        print(len(vectors), len(embed_model.get_query_embedding("How long is the ferry?")))
        ```
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    _adapters: ClassVar[AdapterNames] = (("llm", "LMStudio"), ("embedding", "LMStudioEmbedding"))
    _framework_descriptions: ClassVar[Mapping[str, str]] = CORE_DESCRIPTIONS

    api_token: SecretStr | None = api_token_field(exclude=True)  # `to_dict` has what a dump has

    model_name: str = Field(
        default=_UNNAMED,
        description="LlamaIndex's name for `model`; the two are one setting. The default, `unknown`, means any "
        "loaded model.",
    )

    embed_batch_size: Int = Field(
        default=100,
        ge=1,
        le=2048,
        description="How many texts are in a batch, from 1 to 2,048. The default is 100.",
    )

    length_policy: LengthPolicy = Field(
        default="average",
        description=f"{LENGTH_POLICY} The default is `average`, because LlamaIndex's default chunks are too long "
        "for many models.",
    )

    _prefix_fields: ClassVar[tuple[str, str]] = ("query_instruction", "text_instruction")
    _batches_at_once: ClassVar[int | None] = BATCHES_AT_ONCE

    query_instruction: str | None = Field(default=None, description=PREFIX.format("query"))

    text_instruction: str | None = Field(default=None, description=PREFIX.format("stored text"))

    @classmethod
    def _resolve_aliases(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Accept the names of our fields in other integrations; `model` and `model_name` are one setting."""
        others = {name: value for name, value in values.items() if name not in _NAMES}
        resolved = super()._resolve_aliases(others)
        return resolved if len(others) == len(values) else {**resolved, **_under_both_names(values)}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some settings changed; `model` and `model_name` are one setting."""
        if update and any(name in update for name in _NAMES):
            update = {**update, **_under_both_names(update)}
        return super().model_copy(update=update, deep=deep)

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep `model` and `model_name` the same."""
        if name in _NAMES:
            for each, same in _under_both_names({name: value}).items():
                super().__setattr__(each, same)
        else:
            super().__setattr__(name, value)

    @classmethod
    def class_name(cls) -> str:
        """Return the name of this class in `to_dict` and traces."""
        return "LMStudioEmbedding"

    # Instructions are prepended here, before core's cache: otherwise it would return the vector of a text for a query
    # with the same words. So are the model and the dimensions, or others would get its vectors. Core's hooks remove
    # them, and pass the instruction to the client, which puts it before each part of a long text. -----------------

    def _prefix(self, instruction: str) -> str:
        """Return what stands before each text in core's hands, and so in the keys of its cache."""
        if self.embeddings_cache is None:
            return instruction
        dimensions = "" if self.dimensions is None else f"{self.dimensions}\n"
        return f"{self.model_name}\n{dimensions}{instruction}"

    def _prefixed(self, instruction: str, text: object, many: str) -> str:
        return self._prefix(instruction) + check_text(text, many)

    def get_query_embedding(self, query: str) -> list[float]:
        """Return the vector of a query."""
        return without_span(super().get_query_embedding)(self._prefixed(self.prefixes.query, query, _MANY))

    async def aget_query_embedding(self, query: str) -> list[float]:
        """Return the vector of a query."""
        return await without_span(super().aget_query_embedding)(self._prefixed(self.prefixes.query, query, _AMANY))

    def get_agg_embedding_from_queries(self, queries: list[str], agg_fn: Callable[..., Any] | None = None) -> Any:
        """Return the mean of the vectors of several queries, or their aggregate by `agg_fn`."""
        with _in_batches(queries):
            return super().get_agg_embedding_from_queries(queries, agg_fn)

    async def aget_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., Any] | None = None
    ) -> Any:
        """Return the mean of the vectors of several queries, or their aggregate by `agg_fn`."""
        with _in_batches(queries):
            return await super().aget_agg_embedding_from_queries(queries, agg_fn)

    def get_text_embedding(self, text: str) -> list[float]:
        """Return the vector of a text."""
        return without_span(super().get_text_embedding)(self._prefixed(self.prefixes.document, text, _MANY))

    async def aget_text_embedding(self, text: str) -> list[float]:
        """Return the vector of a text."""
        return await without_span(super().aget_text_embedding)(self._prefixed(self.prefixes.document, text, _AMANY))

    def get_text_embedding_batch(
        self,
        texts: list[str],
        show_progress: bool = False,  # noqa: FBT001, FBT002 - core's
        **kwargs: Any,
    ) -> list[list[float]]:
        """Return the vectors of texts, in order."""
        shown = show_progress or self.show_progress is True
        with _in_batches(texts, self._prefix(self.prefixes.document)) as prefixed:
            return without_span(super().get_text_embedding_batch)(prefixed, shown, **kwargs)

    async def aget_text_embedding_batch(
        self,
        texts: list[str],
        show_progress: bool = False,  # noqa: FBT001, FBT002 - core's
        **kwargs: Any,
    ) -> list[list[float]]:
        """Return the vectors of texts, in order."""
        shown = show_progress or self.show_progress is True
        with _in_batches(texts, self._prefix(self.prefixes.document)) as prefixed:
            return await without_span(super().aget_text_embedding_batch)(prefixed, shown, **kwargs)

    # Core's six hooks -----------------------------------------------------------------------------------------------

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed(self.prefixes.query, [query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._aembed(self.prefixes.query, [query]))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed(self.prefixes.document, [text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aembed(self.prefixes.document, [text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed(self.prefixes.document, texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._aembed(self.prefixes.document, texts)

    def _request(self, prefix: str, texts: list[str]) -> EmbeddingRequest:
        texts = [text.removeprefix(self._prefix(prefix)) for text in texts]
        return EmbeddingRequest(texts, self.length_policy, _CHUNK_SIZE, prefix, _all_texts.get())
