"""Texts that may be too long for a model: reject, cut or split them.

Tokens are counted only where the number of bytes does not decide. That assumes that no tokenizer makes more tokens of a
text than it has bytes in UTF-8: one token for each byte is the last resort of byte-level BPE and of SentencePiece, and
WordPiece has one token for a whole unknown word.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import mul
from typing import Literal, NamedTuple, TypeAlias, cast

from lmstudio_integrations._support.text import beginning
from lmstudio_integrations.client.models.state import ContextWindow
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioContextOverflowError, LMStudioProtocolError

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
    """

    texts: list[str]
    policy: LengthPolicy
    splitter_setting: str
    prefix: str = ""
    all_texts: Sequence[str] = ()
    labels: Sequence[str] = ()
    context_length: int | None = None

    def part(self, start: int, stop: int) -> "EmbeddingRequest":
        """Return a request for some of the texts. Errors count them in the whole list."""
        return replace(
            self, texts=self.texts[start:stop], all_texts=self.all_texts or self.texts, labels=self.labels[start:stop]
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
                raise _prefix_error(prefix, taken + SPECIAL_TOKENS, context_window.length)
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


def _prefix_error(prefix: str, used: int, limit: int) -> LMStudioContextOverflowError:
    return LMStudioContextOverflowError(
        f"the prefix {beginning(prefix)} leaves no room for a text: it has {used} tokens, and the model takes {limit}; "
        "shorten it",
        used=used,
        limit=limit,
    )
