"""An embedding model as its handle uses it: vectors of texts, also of texts that are too long for it."""

from collections.abc import Callable, Sequence
from typing import Any, Self, cast

from pydantic import ValidationError
from pydantic_core import SchemaValidator, core_schema

from lmstudio_integrations._support.typeguards import is_count
from lmstudio_integrations.client.embeddings.long_texts import (
    ALWAYS_FITS,
    SPECIAL_TOKENS,
    EmbeddingRequest,
    average_parts,
    fit_texts,
    utf8_length,
)
from lmstudio_integrations.client.models.model import Model, Texts
from lmstudio_integrations.client.models.state import ContextWindow, Instance
from lmstudio_integrations.client.support.arguments import texts_of, whole_number
from lmstudio_integrations.client.support.progress_bars import ProgressBar
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.listener import NOBODY
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioConfigWarning, LMStudioProtocolError
from lmstudio_integrations.protocol.requests import EmbedString

BAR_STEP = 64
"""Texts between two moves of a progress bar."""

Vectors = list[list[float]]


class Embedder(Model):
    """An embedding model on one server.

    `vectors_of` sends the texts as they are. `vectors_of_long` first cuts or splits those that are too long, in
    `embed_fitted`. Both send them with `request_batches` and `request_vectors`.
    """

    def vectors_of(self, texts: str | Texts, *, show_progress: bool = False) -> Flow[list[float] | Vectors]:
        """Return the vector of a text, or of each of several, with a progress bar for several."""
        is_one = isinstance(texts, str)
        texts = texts_of(texts, "input")
        shown = show_progress and not is_one
        vectors = yield from self._report(lambda model: model.request_batches(texts, show_progress=shown))
        return vectors[0] if is_one else vectors

    def vectors_of_long(
        self, request: EmbeddingRequest, *, max_concurrency: int | None = None, show_progress: bool = False
    ) -> Flow[Vectors]:
        """Return the vectors of texts, of which some may be too long for the model.

        Args:
            request: The texts, and what to do with those that are too long.
            max_concurrency: How many such calls on the model run at once, also beside calls with a higher limit; the
                others wait. `None` sets no limit.
            show_progress: Whether to draw a bar.

        Raises:
            LMStudioContextOverflowError: If a text is too long and the policy is `error`.
            LMStudioValueError: If an argument is invalid.
        """
        if max_concurrency is None:
            return (yield from self._embed(request, show_progress=show_progress))
        whole_number(max_concurrency, "max_concurrency")  # raises if it is none
        limiter = self.server_models.limiter
        permit = yield from limiter.acquire(self.context, (self.state.kind, self.state.key), max_concurrency)
        try:
            return (yield from self._embed(request, show_progress=show_progress))
        finally:
            limiter.release(self.context, permit)

    def vectors_from_one_server(self, request: EmbeddingRequest) -> Flow[tuple[Vectors, str]]:
        """Return the vectors of texts, and the server that made all of them."""
        return (yield from self._embed(request, show_progress=False)), str(self.context.target)

    def _embed(self, request: EmbeddingRequest, *, show_progress: bool) -> Flow[Vectors]:
        return (yield from self._report(lambda model: model.embed_fitted(request, show_progress=show_progress)))

    def _report(self, embed: Callable[[Self], Flow[Vectors]]) -> Flow[Vectors]:
        """Run a flow of this model; report it as one operation, whatever requests it makes, if anybody listens."""
        context, listener = self.context, self.context.listener
        if listener is NOBODY:
            return (yield from embed(self))
        listener = listener.on_start("Embedding", context.target, self.state.key)
        model = self.with_context(lambda context: context.with_listener(listener))
        try:
            vectors = yield from embed(model)
        except BaseException as error:
            listener.on_end(error)
            raise
        listener.on_end(vectors, model.model_key)
        return vectors

    def embed_fitted(self, request: EmbeddingRequest, *, show_progress: bool) -> Flow[Vectors]:
        """Embed texts after those that are too long were cut or split."""
        texts, prefix = texts_of(request.texts, "input"), request.prefix
        longest = 0 if request.policy == "pass" else max(map(utf8_length, texts), default=0) + utf8_length(prefix)
        if longest <= ALWAYS_FITS:
            return (yield from self.request_batches([prefix + text for text in texts], show_progress=show_progress))
        context_window = yield from self._context_window_for(longest)
        if request.context_length is not None:
            context_window = context_window._replace(length=min(context_window.length, request.context_length))
        parts = yield from fit_texts(request, self._count_each, context_window)
        vectors = yield from self.request_batches([prefix + part.text for part in parts], show_progress=show_progress)
        if len(parts) == len(request.texts):
            return vectors
        limit, name = context_window.length, self.state.name
        self.server_models.warn_once(
            ("too long", name),
            f"some texts are longer than the {limit} tokens that the model {name!r} takes; each of them gets the "
            f"average of the vectors of its parts. For vectors of whole texts, lower {request.splitter_setting} below "
            f"{limit}",
            LMStudioConfigWarning,
        )
        return average_parts(parts, vectors)

    def _count_each(self, texts: list[str]) -> Flow[list[int]]:
        return cast("list[int]", (yield from self.count_tokens(texts)))

    def _context_window_for(self, longest: int) -> Flow[ContextWindow]:
        """Return the context window of the instance; request it if the longest text, in bytes, may not fit.

        The model may have been loaded with another one since it was last requested.
        """
        window = self.state.context_window
        if window is None or longest > window.length - SPECIAL_TOKENS:
            info = yield from self.get_info(load=True)
            maximum = info.max_context_length
            window = ContextWindow(info.context_length, maximum if is_count(maximum) else None)
            if self.state.instance is not None:
                self.state.instance.context_window = window
        return window

    def request_batches(self, texts: Sequence[str], *, show_progress: bool) -> Flow[Vectors]:
        """Embed texts that fit; a bar moves with every batch."""
        if not show_progress:
            return (yield from self.request_vectors(texts))
        vectors: Vectors = []
        with ProgressBar(f"Embedding {len(texts)} texts", shown=True) as bar:
            for start in range(0, len(texts), BAR_STEP):
                bar.update(start / len(texts))
                vectors += yield from self.request_vectors(texts[start : start + BAR_STEP])
            bar.update(1.0)
        return vectors

    def request_vectors(self, texts: Sequence[str]) -> Flow[Vectors]:
        """Embed texts that fit, in one operation."""

        def request(operation: Operation, instance: Instance) -> Flow[Vectors]:
            specifier = instance.specifier
            parameters = [EmbedString(modelSpecifier=specifier, inputString=text) for text in texts]
            vectors = yield from operation.call_all("embedding", "embedString", parameters, _vector, label="Embedding")
            if vectors:
                instance.dimensions = len(vectors[-1])
            return vectors

        return (yield from self.on_instance(request))


# Several times as fast as a check of each number in Python.
_FLOATS = SchemaValidator(core_schema.list_schema(core_schema.float_schema(strict=True), min_length=1))


def _vector(result: Any) -> list[float]:
    """Return a vector of Python floats; JSON writes whole numbers without a point."""
    vector = result["embedding"]
    try:
        floats: list[float] = _FLOATS.validate_python(vector)
    except ValidationError:
        if vector == []:
            raise LMStudioProtocolError("Embedding: the server sent an empty vector") from None
        raise TypeError("expected an array of numbers") from None
    return floats
