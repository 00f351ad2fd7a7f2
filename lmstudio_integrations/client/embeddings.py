"""An embedding model as its handle uses it, and texts that are too long for it: they are rejected, cut or split."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import mul
from typing import Any, Literal, NamedTuple, TypeAlias, cast, get_args

from pydantic import ValidationError
from pydantic_core import SchemaValidator, core_schema

from lmstudio_integrations._support.text import beginning
from lmstudio_integrations._support.typeguards import is_count
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.model import Model, Texts
from lmstudio_integrations.client.models.state import ContextWindow, Instance
from lmstudio_integrations.client.support.arguments import texts_of, whole_number
from lmstudio_integrations.client.support.progress_bars import ProgressBar
from lmstudio_integrations.client.transport.listener import NOBODY
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioConfigWarning,
    LMStudioContextOverflowError,
    LMStudioProtocolError,
    LMStudioValueError,
)
from lmstudio_integrations.protocol.requests import EmbedString
from lmstudio_integrations.types.embedding_prefixes import Purpose, prefixes_of_family

SPECIAL_TOKENS = 2
"""Tokens that a model adds around a text."""

ALWAYS_FITS = 60
"""A text of at most this many bytes is never too long: every model takes as many tokens."""


LengthPolicy: TypeAlias = Literal["error", "truncate", "average", "pass"]


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts to be embedded together.

    Attributes:
        texts: The texts.
        policy: Texts that are too long are an error, are embedded by their beginning, get the average of the vectors of
            their parts, or are sent as they are.
        splitter_setting: The name of the setting of the framework that makes texts shorter, for errors.
        prefix: What is put before each text, and before each part of a long one.
        all_texts: The caller's whole list, of which a framework makes batches; empty if `texts` is all of it.
        labels: What errors call each text, such as its line in a file; by default `text` and its number.
        context_length: The most tokens that the model takes, if that is less than the context length of the instance:
            the smallest of several hosts.
        show_progress: Whether to draw a bar.
    """

    texts: list[str]
    policy: LengthPolicy
    splitter_setting: str
    prefix: str = ""
    all_texts: Sequence[str] = ()
    labels: Sequence[str] = ()
    context_length: int | None = None
    show_progress: bool = False

    def part(self, start: int, stop: int) -> "EmbeddingRequest":
        """Return a request for some of the texts, without a bar. Errors count them in the whole list."""
        return replace(
            self,
            texts=self.texts[start:stop],
            all_texts=self.all_texts or self.texts,
            labels=self.labels[start:stop],
            show_progress=False,
        )


class Part(NamedTuple):
    """A text that fits the context window: a whole one, its beginning, or one of the parts of a long one."""

    number: int
    """The index of the text."""
    text: str
    """Without the prefix."""
    tokens: int = 0
    """Those of the text alone, if they were counted."""


def fit_texts(
    request: EmbeddingRequest, count: Callable[[list[str]], Flow[list[int]]], context_window: ContextWindow
) -> Flow[list[Part]]:
    """Return what is embedded for each text, in their order: one part, or several if the policy is `average`.

    Args:
        request: The texts.
        count: Counts the tokens of texts.
        context_window: The context window of the loaded model.

    Raises:
        LMStudioContextOverflowError: If a text is too long and the policy is `error`, or if the prefix leaves no room
            for it.
    """
    prefix, room = request.prefix, max(context_window.length - SPECIAL_TOKENS, 0)
    fitting, suspects = list[Part](), list[Part]()
    for index, text in enumerate(request.texts):
        (suspects if utf8_length(prefix + text) > room else fitting).append(Part(index, text))
    taken = (yield from count([prefix]))[0] if prefix and suspects else 0
    room_beside = room - taken
    while suspects:
        counts = yield from count([prefix + part.text for part in suspects])
        shorter: list[Part] = []
        for (index, text, _), whole in zip(suspects, counts, strict=True):
            tokens = max(whole - taken, 0)
            if whole <= room:
                fitting.append(Part(index, text, tokens))
                continue
            if prefix and room_beside <= 0:
                used, limit = taken + SPECIAL_TOKENS, context_window.length
                raise LMStudioContextOverflowError(
                    f"the prefix {beginning(prefix)} leaves no room for a text: it has {used} tokens, and the model "
                    f"takes {limit}; shorten it",
                    used=used,
                    limit=limit,
                )
            # In proportion. The next count shows whether that is enough.
            if request.policy == "truncate" and text:
                cuts = [text[: min(len(text) * room_beside // tokens, len(text) - 1)]]
            elif request.policy == "average" and room_beside and len(text) > 1:
                cuts = split_text(text, -(-tokens // room_beside))
            else:  # what is left cannot be cut
                raise overflow_error(request, index, whole + SPECIAL_TOKENS, context_window, taken)
            shorter += [Part(index, cut) for cut in cuts]
        suspects = shorter
    return sorted(fitting, key=lambda part: part.number)


def split_text(text: str, count: int) -> list[str]:
    """Split a text into parts of about the same length, after a word if possible: every tokenizer has a border there.

    Args:
        text: The text; at least two characters.
        count: The number of parts, at least 2; a shorter text gets one for each character.
    """
    count = min(count, len(text))
    borders = [0]
    for number in range(1, count):
        border = len(text) * number // count
        space = text.rfind(" ", borders[-1] + 1, border)
        borders.append(border if space < 0 else space)
    return [text[start:end] for start, end in zip(borders, [*borders[1:], len(text)], strict=True)]


def average_parts(parts: Sequence[Part], vectors: Sequence[list[float]]) -> list[list[float]]:
    """Return one vector for each text: the average of the vectors of its parts, weighted by their tokens.

    It is as long as they are on average. So it is normalized if the model normalizes its vectors.
    """
    groups = groupby(zip(parts, vectors, strict=True), key=lambda pair: pair[0].number)
    return [_average([(part.tokens or 1, vector) for part, vector in group]) for _, group in groups]


def _average(weighted: Sequence[tuple[int, list[float]]]) -> list[float]:
    weights, vectors = zip(*weighted, strict=True)
    if len(vectors) == 1:
        return cast("list[float]", vectors[0])
    total = [sum(map(mul, weights, numbers)) for numbers in zip(*vectors, strict=True)]
    length = sum(weight * math.hypot(*vector) for weight, vector in weighted) / sum(weights)
    scale = length / (math.hypot(*total) or 1.0)
    return [number * scale for number in total]


def utf8_length(text: str) -> int:
    """Return the number of bytes of a text in UTF-8."""
    # A text from a document may contain half of a surrogate pair.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def overflow_error(
    request: EmbeddingRequest, index: int, used: int, context_window: ContextWindow, prefix_tokens: int = 0
) -> LMStudioContextOverflowError:
    """Return the error of a text that is too long. With a prefix, `used` counts both."""
    text, (limit, maximum) = request.texts[index], context_window
    place = request.all_texts.index(text) if text in request.all_texts else index
    label = request.labels[index] if request.labels else f"text {place}"
    bound, advice = str(limit), [f"lower {request.splitter_setting} below {limit - prefix_tokens}"]
    if maximum is not None:
        bound = f"at most {limit}" if maximum <= limit else f"{limit} of its max_context_length of {maximum}"
    if maximum is None or used <= maximum:
        advice.append(f"load the model with a context_length of {used} or more")
    if request.policy == "error":
        advice.append("set length_policy='average' to embed it in parts, or 'truncate' to embed its beginning")
    return LMStudioContextOverflowError(
        f"{label} has {used} tokens{' with its prefix' if request.prefix else ''}, and the model takes {bound}; "
        f"{', or '.join(advice)}",
        used=used,
        limit=limit,
    )


BAR_STEP = 64
"""Texts between two moves of a progress bar."""

Vectors = list[list[float]]


class Embedder(Model):
    """An embedding model on one server.

    `vectors_of` sends the texts as they are. `vectors_of_long` first cuts or splits those that are too long, in
    `embed_fitted`. Both send them with `request_batches` and `request_vectors`.
    """

    def vectors_of(
        self, texts: str | Texts, purpose: Purpose | None = None, *, show_progress: bool = False
    ) -> Flow[list[float] | Vectors]:
        """Return the vector of a text, or of each of several, with a progress bar for several.

        Args:
            texts: The texts.
            purpose: Puts what the family of the model wants before queries or documents before each text.
            show_progress: Whether to draw a bar.

        Raises:
            LMStudioValueError: If an argument is invalid.
        """
        is_one = isinstance(texts, str)
        if purpose not in (None, *get_args(Purpose)):
            raise LMStudioValueError(f"purpose must be 'query' or 'document', or None; got {purpose!r}")
        prefix = "" if purpose is None else getattr(prefixes_of_family(self.state.key), purpose)
        shown = show_progress and not is_one
        request = EmbeddingRequest(texts_of(texts, "input"), "pass", "", prefix, show_progress=shown)
        vectors = yield from self._report(request)
        return vectors[0] if is_one else vectors

    def vectors_of_long(self, request: EmbeddingRequest, *, max_concurrency: int | None = None) -> Flow[Vectors]:
        """Return the vectors of texts, of which some may be too long for the model.

        Args:
            request: The texts, and what to do with those that are too long.
            max_concurrency: How many such calls on the model run at once, also beside calls with a higher limit; the
                others wait. `None` sets no limit.

        Raises:
            LMStudioContextOverflowError: If a text is too long and the policy is `error`.
            LMStudioValueError: If an argument is invalid.
        """
        if max_concurrency is None:
            return (yield from self._embed(request))
        whole_number(max_concurrency, "max_concurrency")  # raises if it is none
        limiter = self.server_models.limiter
        permit = yield from limiter.acquire(self.context, (self.state.kind, self.state.key), max_concurrency)
        try:
            return (yield from self._embed(request))
        finally:
            limiter.release(self.context, permit)

    def _embed(self, request: EmbeddingRequest) -> Flow[Vectors]:
        return (yield from self._report(request))

    def _report(self, request: EmbeddingRequest) -> Flow[Vectors]:
        """Embed texts; report it as one operation, whatever requests it makes, if anybody listens."""
        context, listener = self.context, self.context.listener
        if listener is NOBODY:
            return (yield from self.embed_fitted(request))
        listener = listener.on_start("Embedding", context.target, self.state.key)
        model = self.with_context(lambda context: context.with_listener(listener))
        try:
            vectors = yield from model.embed_fitted(request)
        except BaseException as error:
            listener.on_end(error)
            raise
        listener.on_end(vectors, model.model_key)
        return vectors

    def embed_fitted(self, request: EmbeddingRequest) -> Flow[Vectors]:
        """Embed texts after those that are too long were cut or split."""
        texts, prefix = texts_of(request.texts, "input"), request.prefix
        shown = request.show_progress
        longest = 0 if request.policy == "pass" else max(map(utf8_length, texts), default=0) + utf8_length(prefix)
        if longest <= ALWAYS_FITS:
            return (yield from self.request_batches([prefix + text for text in texts], show_progress=shown))
        context_window = yield from self._context_window_for(longest)
        if request.context_length is not None:
            context_window = context_window._replace(length=min(context_window.length, request.context_length))
        count = cast("Callable[[list[str]], Flow[list[int]]]", self.count_tokens)  # of a list
        parts = yield from fit_texts(request, count, context_window)
        vectors = yield from self.request_batches([prefix + part.text for part in parts], show_progress=shown)
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
        """Embed texts that fit; a bar moves with every batch.

        Raises:
            LMStudioProtocolError: If the vectors have different dimensions.
        """
        vectors: Vectors = []
        if not show_progress:
            vectors = yield from self.request_vectors(texts)
        else:
            with ProgressBar(f"Embedding {len(texts)} texts", shown=True) as bar:
                for start in range(0, len(texts), BAR_STEP):
                    bar.report(start / len(texts))
                    vectors += yield from self.request_vectors(texts[start : start + BAR_STEP])
                bar.report(1.0)
        lengths = sorted(set(map(len, vectors)))
        if len(lengths) > 1:
            raise LMStudioProtocolError(
                f"Embedding: the server sent vectors of {' and '.join(map(str, lengths))} numbers; make the call again"
            )
        return vectors

    def request_vectors(self, texts: Sequence[str]) -> Flow[Vectors]:
        """Embed texts that fit, in one operation."""

        def request(operation: Operation, instance: Instance) -> Flow[Vectors]:
            specifier, unread = instance.specifier, iter(texts)
            parameters = [EmbedString(modelSpecifier=specifier, inputString=text) for text in texts]
            vectors = yield from operation.call_all(
                "embedding", "embedString", parameters, lambda result: _vector(result, next(unread)), label="Embedding"
            )
            if vectors:
                instance.dimensions = len(vectors[-1])
            return vectors

        return (yield from self.on_instance(request))


# Several times as fast as a check of each number in Python.
_FLOATS = SchemaValidator(
    core_schema.list_schema(core_schema.float_schema(strict=True, allow_inf_nan=False), min_length=1)
)


def _vector(result: Any, text: str) -> list[float]:
    """Return a vector of Python floats; JSON writes whole numbers without a point, and `null` for one that is none."""
    vector = result["embedding"]
    try:
        floats: list[float] = _FLOATS.validate_python(vector)
    except ValidationError:
        sent = "an empty vector" if vector == [] else "no list of finite numbers"
        raise LMStudioProtocolError(f"Embedding: the server sent {sent} for the text {beginning(text)}") from None
    return floats
