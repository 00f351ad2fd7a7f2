"""Embed texts that may be too long: a text is rejected or cut before it is sent, and batches of one model are limited.

The embedding models of both clients call `embed_texts`, for the adapters. The requests are those of `_models.py`.

The context window is requested once, and again before a text is rejected or cut, because the model may have been loaded
with another one meanwhile. Tokens are counted only where the number of bytes does not decide.
"""

from collections.abc import Callable, Sequence
from typing import Any

from lmstudio_integrations._typeguards import is_count
from lmstudio_integrations.client._binding import Binding
from lmstudio_integrations.client._gates import in_gate
from lmstudio_integrations.client._models import count_tokens, embed, get_info
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioContextOverflowError
from lmstudio_integrations.types.embedding_request import EmbeddingRequest

SPECIAL_TOKENS = 2
"""Tokens that a model adds around a text."""

ALWAYS_FITS = 60
"""A text of this many bytes has at most as many tokens, and every model takes them."""

BATCH = 64
"""Texts between two reports of progress."""


def embed_texts(
    dispatcher: Dispatcher[Any],
    binding: Binding,
    request: EmbeddingRequest,
    on_progress: Callable[[float], Any] | None = None,
    most: int | None = None,
) -> Flow[list[list[float]]]:
    """Return the vectors of texts.

    Args:
        dispatcher: Sends requests to the server.
        binding: The model.
        request: The texts.
        on_progress: Called with growing values from 0.0 to 1.0.
        most: How many such calls on the model run at once; the others wait. `None` sets no limit.

    Raises:
        LMStudioContextOverflowError: If a text is too long and the policy is `error`.
    """
    if most is not None:
        return in_gate(dispatcher, binding, most, lambda: _embed(dispatcher, binding, request, on_progress))
    return _embed(dispatcher, binding, request, on_progress)


def _embed(
    dispatcher: Dispatcher[Any], binding: Binding, request: EmbeddingRequest, on_progress: Callable[[float], Any] | None
) -> Flow[list[list[float]]]:
    texts = yield from _fit(dispatcher, binding, request)
    if on_progress is None:
        return (yield from embed(dispatcher, binding, texts))
    vectors: list[list[float]] = []
    for start in range(0, len(texts), BATCH):
        on_progress(start / len(texts))
        vectors += yield from embed(dispatcher, binding, texts[start : start + BATCH])
    on_progress(1.0)
    return vectors


def _fit(dispatcher: Dispatcher[Any], binding: Binding, request: EmbeddingRequest) -> Flow[list[str]]:
    """Return what is embedded in place of the texts."""
    longest = max(map(size, request.texts), default=0)
    if request.policy == "pass" or longest <= ALWAYS_FITS:
        return request.texts
    context_window = binding.context_window
    if context_window is None or longest > context_window[0] - SPECIAL_TOKENS:
        info = yield from get_info(dispatcher, binding, load=True)
        maximum = info.max_context_length
        context_window = binding.context_window = info.context_length, maximum if is_count(maximum) else None

    def count(texts: Sequence[str]) -> "Flow[list[int]]":
        return count_tokens(dispatcher, binding, texts)

    return (yield from fit(request, count, *context_window))


def fit(
    request: EmbeddingRequest, count: Callable[[Sequence[str]], Flow[list[int]]], limit: int, maximum: int | None = None
) -> Flow[list[str]]:
    """Return the texts, each of them no longer than a limit of tokens.

    Args:
        request: The texts.
        count: Counts the tokens of texts.
        limit: The context window of the loaded model, in tokens.
        maximum: The longest context window that the model can be loaded with, if it is known.

    Raises:
        LMStudioContextOverflowError: If a text is too long and the policy is `error`.
    """
    texts, room = list(request.texts), max(limit - SPECIAL_TOKENS, 0)
    suspects: list[int] = [index for index, text in enumerate(texts) if size(text) > limit - SPECIAL_TOKENS]
    while suspects:
        counts = yield from count([texts[index] for index in suspects])
        too_long = {index: tokens for index, tokens in zip(suspects, counts, strict=True) if tokens > room}
        for index, tokens in too_long.items():
            if request.policy == "error" or not texts[index]:  # an empty text cannot be cut
                raise overflow_error(request, index, tokens + SPECIAL_TOKENS, limit, maximum)
        for index, tokens in too_long.items():
            text = texts[index]
            texts[index] = text[: min(len(text) * room // tokens, len(text) - 1)]
        suspects = list(too_long)
    return texts


def size(text: str) -> int:
    """Return the bytes of a text, which has at most as many tokens."""
    # A text from a document may contain half of a surrogate pair.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def overflow_error(
    request: EmbeddingRequest, index: int, used: int, limit: int, maximum: int | None
) -> LMStudioContextOverflowError:
    text = request.texts[index]
    place = request.given.index(text) if text in request.given else index
    bound, advice = f"{limit}", [f"lower {request.chunk_size} below {limit}"]
    if maximum is not None:
        bound += ", its max_context_length" if maximum <= limit else f" of its max_context_length of {maximum}"
    if maximum is None or used <= maximum:
        advice.append(f"load the model with a context_length of {used} or more")
    if request.policy == "error":
        advice.append("set length_policy='truncate' to embed its beginning")
    return LMStudioContextOverflowError(
        f"text {place} has {used} tokens, and the model takes {bound}; {', or '.join(advice)}", used=used, limit=limit
    )
