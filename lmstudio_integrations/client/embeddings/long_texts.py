"""Embed texts that may be too long for the model: reject, cut or split them, and limit how many batches run at once.

The embedding models of both clients call `embed_texts`, for the adapters. The requests are those of
`models/queries.py`.

The context window is requested once, and again before a text is rejected or cut, because the model may have been
loaded with another one meanwhile. Tokens are counted only where the number of bytes does not decide. That assumes that
no tokenizer makes more tokens of a text than it has bytes in UTF-8: one token for each byte is the last resort of
byte-level BPE and of SentencePiece, and WordPiece has one token for a whole unknown word.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from operator import mul
from typing import Any, NamedTuple, cast

from lmstudio_integrations._support.typeguards import is_count
from lmstudio_integrations.client.models.binding import Binding, ContextWindow
from lmstudio_integrations.client.models.gates import in_gate
from lmstudio_integrations.client.models.queries import count_tokens, embed, get_info
from lmstudio_integrations.client.models.server_models import models_of
from lmstudio_integrations.client.telemetry.spans import may_trace, trace_embeddings
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.telemetry import API, LOADED
from lmstudio_integrations.errors import LMStudioConfigWarning, LMStudioContextOverflowError, LMStudioProtocolError
from lmstudio_integrations.types.embedding_request import EmbeddingRequest

SPECIAL_TOKENS = 2
"""Tokens that a model adds around a text."""

ALWAYS_FITS = 60
"""A text of at most this many bytes is never too long: every model takes as many tokens."""


class Part(NamedTuple):
    """A text that fits the context window: a whole one, its beginning, or one of the parts of a long one."""

    number: int
    """The index of the text."""
    text: str
    tokens: int = 0
    """Its tokens, if they were counted."""


def embed_texts(
    dispatcher: Dispatcher[Any],
    binding: Binding,
    request: EmbeddingRequest,
    max_concurrency: int | None = None,
    show_progress: bool = False,  # noqa: FBT001, FBT002 - as the caller has it
) -> Flow[list[list[float]]]:
    """Return the vectors of texts.

    Args:
        dispatcher: Sends requests to the server.
        binding: The model.
        request: The texts.
        max_concurrency: How many such calls on the model run at once; the others wait. `None` sets no limit.
        show_progress: Whether to draw a bar.

    Raises:
        LMStudioContextOverflowError: If a text is too long and the policy is `error`.
    """
    if max_concurrency is not None:
        start = partial(_embed, dispatcher, binding, request, show_progress)
        return in_gate(dispatcher, binding, max_concurrency, start)
    return _embed(dispatcher, binding, request, show_progress)


def _embed(
    dispatcher: Dispatcher[Any],
    binding: Binding,
    request: EmbeddingRequest,
    show_progress: bool,  # noqa: FBT001 - as the caller has it
) -> Flow[list[list[float]]]:
    if API in LOADED and may_trace(dispatcher):
        again = partial(_embed, binding=binding, request=request, show_progress=show_progress)
        vectors: list[list[float]] = yield from trace_embeddings(dispatcher, binding, again)
        return vectors
    longest = max(map(utf8_length, request.texts), default=0)
    if request.policy == "pass" or longest <= ALWAYS_FITS:
        return cast("list[list[float]]", (yield from embed(dispatcher, binding, request.texts, show_progress)))
    context_window = yield from _context_window_for(dispatcher, binding, longest)
    if request.context_length is not None:
        context_window = context_window._replace(length=min(context_window.length, request.context_length))

    def count(texts: list[str]) -> "Flow[list[int]]":
        return cast("Flow[list[int]]", count_tokens(dispatcher, binding, texts))

    parts = yield from fit_texts(request, count, context_window)
    texts = [part.text for part in parts]
    vectors = cast("list[list[float]]", (yield from embed(dispatcher, binding, texts, show_progress)))
    if len(parts) == len(request.texts):
        return vectors
    limit = context_window.length
    models_of(dispatcher).warn_once(
        ("too long", binding.name),
        f"some texts are longer than the {limit} tokens that the model {binding.name!r} takes; each of them gets the "
        f"average of the vectors of its parts. For vectors of whole texts, lower {request.splitter_setting} below "
        f"{limit}",
        LMStudioConfigWarning,
    )
    return average_parts(parts, vectors)


def _context_window_for(dispatcher: Dispatcher[Any], binding: Binding, longest: int) -> Flow[ContextWindow]:
    """Return the context window of the instance; request it if the longest text, in bytes, may not fit."""
    context_window = binding.context_window
    if context_window is None or longest > context_window.length - SPECIAL_TOKENS:
        info = yield from get_info(dispatcher, binding, load=True)
        maximum = info.max_context_length
        context_window = ContextWindow(info.context_length, maximum if is_count(maximum) else None)
        binding.context_window = context_window
    return context_window


def fit_texts(
    request: EmbeddingRequest, count: Callable[[list[str]], Flow[list[int]]], context_window: ContextWindow
) -> Flow[list[Part]]:
    """Return what is embedded for each text, in their order: one part, or several if the policy is `average`.

    Args:
        request: The texts.
        count: Counts the tokens of texts.
        context_window: The context window of the loaded model.

    Raises:
        LMStudioContextOverflowError: If a text is too long and the policy is `error`.
    """
    room = max(context_window.length - SPECIAL_TOKENS, 0)
    fitting, suspects = list[Part](), list[Part]()
    for index, text in enumerate(request.texts):
        (suspects if utf8_length(text) > room else fitting).append(Part(index, text))
    while suspects:
        counts = yield from count([part.text for part in suspects])
        shorter: list[Part] = []
        for (index, text, _), tokens in zip(suspects, counts, strict=True):
            if tokens <= room:
                fitting.append(Part(index, text, tokens))
                continue
            # In proportion. The next count shows whether that is enough.
            if request.policy == "truncate" and text:
                cuts = [text[: min(len(text) * room // tokens, len(text) - 1)]]
            elif request.policy == "average" and room and len(text) > 1:
                cuts = split_text(text, -(-tokens // room))
            else:  # what is left cannot be cut
                raise overflow_error(request, index, tokens + SPECIAL_TOKENS, context_window)
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

    Raises:
        LMStudioProtocolError: If the vectors of the parts have different dimensions.
    """
    groups = groupby(zip(parts, vectors, strict=True), key=lambda pair: pair[0].number)
    return [_average([(part.tokens or 1, vector) for part, vector in group]) for _, group in groups]


def _average(weighted: Sequence[tuple[int, list[float]]]) -> list[float]:
    weights, vectors = zip(*weighted, strict=True)
    if len(vectors) == 1:
        return cast("list[float]", vectors[0])
    if len(set(map(len, vectors))) > 1:
        raise LMStudioProtocolError("Embedding: the server sent vectors of different dimensions for parts of one text")
    total = [sum(map(mul, weights, numbers)) for numbers in zip(*vectors, strict=True)]
    length = sum(weight * math.hypot(*vector) for weight, vector in weighted) / sum(weights)
    scale = length / (math.hypot(*total) or 1.0)
    return [number * scale for number in total]


def utf8_length(text: str) -> int:
    """Return the number of bytes of a text in UTF-8."""
    # A text from a document may contain half of a surrogate pair.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def overflow_error(
    request: EmbeddingRequest, index: int, used: int, context_window: ContextWindow
) -> LMStudioContextOverflowError:
    """Return the error of a text that is too long."""
    text, (limit, maximum) = request.texts[index], context_window
    place = request.given.index(text) if text in request.given else index
    label = request.labels[index] if request.labels else f"text {place}"
    bound, advice = f"{limit}", [f"lower {request.splitter_setting} below {limit}"]
    if maximum is not None:
        bound += ", its max_context_length" if maximum <= limit else f" of its max_context_length of {maximum}"
    if maximum is None or used <= maximum:
        advice.append(f"load the model with a context_length of {used} or more")
    if request.policy == "error":
        advice.append("set length_policy='average' to embed it in parts, or 'truncate' to embed its beginning")
    return LMStudioContextOverflowError(
        f"{label} has {used} tokens, and the model takes {bound}; {', or '.join(advice)}", used=used, limit=limit
    )
