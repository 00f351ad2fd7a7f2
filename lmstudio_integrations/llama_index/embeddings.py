"""`LMStudioEmbedding`: a LlamaIndex embedding model over LM Studio's native protocol."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Any, ClassVar, Self

from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import ConfigDict, Field

from lmstudio_integrations._adapters.runtime import Server, Wanted
from lmstudio_integrations._adapters.settings import EmbeddingLoadConfig
from lmstudio_integrations._adapters.texts import prefixed
from lmstudio_integrations.errors import LMStudioProtocolError, LMStudioValueError
from lmstudio_integrations.llama_index._callbacks import without_span
from lmstudio_integrations.llama_index._names import with_timeouts
from lmstudio_integrations.llama_index._pickling import PickleMixin
from lmstudio_integrations.types._numbers import Int
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LoadPolicy, LoadSettings, ModelKind
from lmstudio_integrations.types.embeddings import EmbeddingRequest, LengthPolicy

_NAMES = ("model", "model_name")
_UNNAMED = "unknown"
"""What core calls a model that has no name; here it is any model that is loaded."""

_CHUNK_SIZE = "Settings.chunk_size, or the node parser's chunk_size,"

_given_texts: ContextVar[Sequence[str]] = ContextVar("_given_texts", default=())
"""The whole list of which core makes batches, for errors that name the place of a text."""

BATCHES_AT_ONCE = 4
"""Batches of one model that are in flight at once; each has up to 32 texts in flight."""


@contextmanager
def _in_batches(texts: Sequence[str]) -> Generator[None]:
    before = _given_texts.set(texts)
    try:
        yield
    finally:
        _given_texts.reset(before)


def _under_both_names(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model under our name and under core's.

    Raises:
        LMStudioValueError: If the two say different things.
    """
    said = [given[name] for name in _NAMES if given.get(name) not in (None, _UNNAMED)]
    if any(name != said[0] for name in said):
        raise LMStudioValueError(f"model and model_name are one setting; got {said}")
    return {"model": said[0], "model_name": said[0]} if said else {"model": None, "model_name": _UNNAMED}


class LMStudioEmbedding(PickleMixin, BaseEmbedding):
    """Embed texts with a model in LM Studio.

    The object is configuration only: making one costs no connection, and it can be copied, pickled, shared by threads
    and by event loops. `num_workers` may stay unset: how much is on its way at once is bounded per model.

    Example:
        ```python
        from lmstudio_integrations.llama_index import LMStudioEmbedding

        embed_model = LMStudioEmbedding(
            model="text-embedding-nomic-embed-text-v1.5", query_instruction="search_query: "
        )
        vector = embed_model.get_query_embedding("Why is the sky blue?")
        ```
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", defer_build=True)
    _kind: ClassVar[ModelKind] = "embedding"
    _load_settings: ClassVar[type[LoadSettings]] = EmbeddingLoadModelConfig

    model_name: str = Field(default=_UNNAMED)
    """The same as `model`, under core's name."""

    embed_batch_size: Annotated[Int, Field(ge=1, le=2048)] = 100
    """Texts of one batch; also how often a progress bar moves."""

    load_config: EmbeddingLoadConfig = None
    """How to load the model, if a call of this object loads it: `EmbeddingLoadModelConfig` or a dict of its fields."""

    query_instruction: str = ""
    """Put before every question; what it must be, the model's card says."""

    text_instruction: str = ""
    """Put before every text that is stored."""

    load_policy: LoadPolicy = "explicit"
    """`explicit` by default: an embedding model is small, and used beside a language model, whose just-in-time load
    would evict it. See `LoadPolicy` of the language models for the others."""

    length_policy: LengthPolicy = "error"
    """What to do with a text that is too long for the model: `error`; `truncate` embeds its beginning; `pass` leaves it
    to the server, which may cut it silently."""

    @classmethod
    def _under_own_names(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Accept the names that other integrations have for our fields; `model` and `model_name` are one."""
        others = {name: value for name, value in values.items() if name not in _NAMES}
        return {**super()._under_own_names(with_timeouts(others)), **_under_both_names(values)}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other settings; `model` and `model_name` are one here as well."""
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
        """Return the name under which `to_dict` and traces know this class."""
        return "LMStudioEmbedding"

    def load(self) -> Self:
        """Get the model, loading it if need be; return this object.

        Raises:
            LMStudioServerError: If the server cannot.
        """
        server, wanted, config = self._settled()
        self._runtime.embedding(server, wanted, config).get_info(load=True)
        return self

    async def aload(self) -> Self:
        """Get the model, loading it if need be; return this object.

        Raises:
            LMStudioServerError: If the server cannot.
        """
        server, wanted, config = self._settled()
        await self._runtime.async_embedding(server, wanted, config).get_info(load=True)
        return self

    # With its instruction, a text is another text. That is done here, above core's cache, which would otherwise hand
    # out the vector of a text for a question of the same wording. -------------------------------------------------

    def get_query_embedding(self, query: str) -> list[float]:
        """Return the vector of a question."""
        return without_span(super().get_query_embedding)(*prefixed(self.query_instruction, [query]))

    async def aget_query_embedding(self, query: str) -> list[float]:
        """Return the vector of a question."""
        return await without_span(super().aget_query_embedding)(*prefixed(self.query_instruction, [query]))

    def get_agg_embedding_from_queries(self, queries: list[str], agg_fn: Callable[..., Any] | None = None) -> Any:
        """Return the mean of the vectors of several questions, or what `agg_fn` makes of them."""
        with _in_batches(prefixed(self.query_instruction, queries)):
            return super().get_agg_embedding_from_queries(queries, agg_fn)

    async def aget_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., Any] | None = None
    ) -> Any:
        """Return the mean of the vectors of several questions, or what `agg_fn` makes of them."""
        with _in_batches(prefixed(self.query_instruction, queries)):
            return await super().aget_agg_embedding_from_queries(queries, agg_fn)

    def get_text_embedding(self, text: str) -> list[float]:
        """Return the vector of a text."""
        return without_span(super().get_text_embedding)(*prefixed(self.text_instruction, [text]))

    async def aget_text_embedding(self, text: str) -> list[float]:
        """Return the vector of a text."""
        return await without_span(super().aget_text_embedding)(*prefixed(self.text_instruction, [text]))

    def get_text_embedding_batch(
        self,
        texts: list[str],
        show_progress: bool = False,  # noqa: FBT001, FBT002 - core's
        **kwargs: Any,
    ) -> list[list[float]]:
        """Return the vectors of texts, in their order."""
        given = prefixed(self.text_instruction, texts)
        with _in_batches(given):
            return without_span(super().get_text_embedding_batch)(given, show_progress, **kwargs)

    async def aget_text_embedding_batch(
        self,
        texts: list[str],
        show_progress: bool = False,  # noqa: FBT001, FBT002 - core's
        **kwargs: Any,
    ) -> list[list[float]]:
        """Return the vectors of texts, in their order."""
        given = prefixed(self.text_instruction, texts)
        with _in_batches(given):
            return await without_span(super().aget_text_embedding_batch)(given, show_progress, **kwargs)

    # Core's six hooks -----------------------------------------------------------------------------------------------

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._aembed([query]))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aembed([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._aembed(texts)

    def _embed(self, texts: list[str]) -> list[list[float]]:
        model = self._runtime.embedding(*self._settled()).with_retries(self.max_retries)
        return _counted(model.embed_texts(self._request(texts), most=BATCHES_AT_ONCE), texts)

    async def _aembed(self, texts: list[str]) -> list[list[float]]:
        model = self._runtime.async_embedding(*self._settled()).with_retries(self.max_retries)
        return _counted(await model.embed_texts(self._request(texts), most=BATCHES_AT_ONCE), texts)

    def _request(self, texts: list[str]) -> EmbeddingRequest:
        return EmbeddingRequest(texts, self.length_policy, _CHUNK_SIZE, _given_texts.get())

    def _settled(self) -> tuple[Server, Wanted, LoadSettings | None]:
        values = self.__dict__
        config = self._load_config(values)
        return self._server(values, self._runtime), self._wanted(values, config), config


def _counted(vectors: list[list[float]], texts: Sequence[str]) -> list[list[float]]:
    """Return the vectors if there is one for each text; core would silently leave out the last texts."""
    if len(vectors) != len(texts):
        raise LMStudioProtocolError(f"the server sent {len(vectors)} vectors for {len(texts)} texts")
    return vectors
