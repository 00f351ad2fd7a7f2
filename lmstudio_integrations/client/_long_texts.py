"""Embed texts that may be too long for the model: reject or truncate them, and limit how many batches run at once.

The embedding models of both clients call `embed_texts`, for the adapters. The requests are those of `_models.py`.

The context window is requested once, and again before a text is rejected or truncated, because the model may have been
loaded with another one meanwhile. Tokens are counted only where the number of bytes does not decide. That assumes that
no tokenizer makes more tokens of a text than it has bytes in UTF-8: one token for each byte is the last resort of
byte-level BPE and of SentencePiece, and WordPiece has one token for a whole unknown word.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from lmstudio_integrations._typeguards import is_count
from lmstudio_integrations.client._binding import Binding, ContextWindow
from lmstudio_integrations.client._gates import in_gate
from lmstudio_integrations.client._models import count_tokens, embed, get_info
from lmstudio_integrations.client._telemetry import may_trace, trace_embeddings
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.telemetry import API, LOADED
from lmstudio_integrations.errors import LMStudioContextOverflowError
from lmstudio_integrations.types.embedding_request import EmbeddingRequest

SPECIAL_TOKENS = 2
"""Tokens that a model adds around a text."""

ALWAYS_FITS = 60
"""A text of at most this many bytes is never too long: every model takes as many tokens."""


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
    texts = yield from _texts_that_fit(dispatcher, binding, request)
    return cast("list[list[float]]", (yield from embed(dispatcher, binding, texts, show_progress)))


def _texts_that_fit(dispatcher: Dispatcher[Any], binding: Binding, request: EmbeddingRequest) -> Flow[list[str]]:
    """Return what is embedded in place of the texts."""
    longest = max(map(utf8_length, request.texts), default=0)
    if request.policy == "pass" or longest <= ALWAYS_FITS:
        return request.texts
    context_window = binding.context_window
    if context_window is None or longest > context_window.length - SPECIAL_TOKENS:
        info = yield from get_info(dispatcher, binding, load=True)
        maximum = info.max_context_length
        context_window = ContextWindow(info.context_length, maximum if is_count(maximum) else None)
        binding.context_window = context_window
    if request.context_length is not None:
        context_window = context_window._replace(length=min(context_window.length, request.context_length))

    def count(texts: list[str]) -> "Flow[list[int]]":
        return cast("Flow[list[int]]", count_tokens(dispatcher, binding, texts))

    return (yield from truncate_or_reject(request, count, context_window))


def truncate_or_reject(
    request: EmbeddingRequest, count: Callable[[list[str]], Flow[list[int]]], context_window: ContextWindow
) -> Flow[list[str]]:
    """Return the texts, each of them no longer than the context window.

    Args:
        request: The texts.
        count: Counts the tokens of texts.
        context_window: The context window of the loaded model.

    Raises:
        LMStudioContextOverflowError: If a text is too long and the policy is `error`.
    """
    texts, room = list(request.texts), max(context_window.length - SPECIAL_TOKENS, 0)
    suspects: list[int] = [index for index, text in enumerate(texts) if utf8_length(text) > room]
    while suspects:
        counts = yield from count([texts[index] for index in suspects])
        too_long = {index: tokens for index, tokens in zip(suspects, counts, strict=True) if tokens > room}
        for index, tokens in too_long.items():
            text = texts[index]
            if request.policy == "error" or not text:  # an empty text cannot be cut
                raise overflow_error(request, index, tokens + SPECIAL_TOKENS, context_window)
            # In proportion, and by one character at least. The next count shows whether that is enough.
            texts[index] = text[: min(len(text) * room // tokens, len(text) - 1)]
        suspects = list(too_long)
    return texts


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
        advice.append("set length_policy='truncate' to embed its beginning")
    return LMStudioContextOverflowError(
        f"{label} has {used} tokens, and the model takes {bound}; {', or '.join(advice)}", used=used, limit=limit
    )
