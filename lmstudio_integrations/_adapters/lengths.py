"""Texts that are too long for an embedding model: found, rejected or cut. Pure; who carries it out counts the tokens.

A plan is a generator: it yields texts whose tokens are to be counted, is sent the counts, and returns what to embed.
"""

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from lmstudio_integrations.errors import LMStudioContextOverflowError

AskedT = TypeVar("AskedT")
LengthPolicy: TypeAlias = Literal["error", "truncate", "pass"]
Plan: TypeAlias = Generator[list[str], list[int], list[str]]

MARKS = 2
"""Tokens that a model puts around a text."""

ALWAYS_FITS = 60
"""A text of so many bytes has at most as many tokens, and every model takes them."""


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts to be embedded together.

    Attributes:
        texts: The texts.
        policy: What to do with those that are too long.
        chunk_size: The name of the setting that makes texts shorter, for errors.
        given: The list that the caller gave, of which frameworks make batches; empty if the texts are all of it.
    """

    texts: list[str]
    policy: LengthPolicy
    chunk_size: str
    given: Sequence[str] = ()

    def too_long(self, index: int, used: int, window: int, maximum: int | None) -> LMStudioContextOverflowError:
        """Return the error of a text.

        Args:
            index: Its place among the texts.
            used: Its tokens.
            window: Tokens that the model takes as it is loaded.
            maximum: Tokens that it takes at most, where known.
        """
        text = self.texts[index]
        place = self.given.index(text) if text in self.given else index
        limit, advice = f"{window}", [f"lower {self.chunk_size} below {window}"]
        if maximum is not None:
            limit += ", its max_context_length" if maximum <= window else f" of its max_context_length of {maximum}"
        if maximum is None or used <= maximum:
            advice.append(f"load the model with a context_length of {used} or more")
        if self.policy == "error":
            advice.append("set length_policy='truncate' to embed its beginning")
        return LMStudioContextOverflowError(
            f"text {place} has {used} tokens, and the model takes {limit}; {', or '.join(advice)}",
            used=used,
            limit=window,
        )


def longest(texts: Sequence[str]) -> int:
    """Return the bytes of the longest text."""
    return max(map(_size, texts), default=0)


def surely_fits(size: int, window: int) -> bool:
    """Whether a text of so many bytes fits a window: no text has more tokens than bytes."""
    return size <= window - MARKS


def _size(text: str) -> int:
    # What was read from documents may hold half a surrogate pair.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def plan(request: EmbeddingRequest, window: int, maximum: int | None = None) -> Plan:
    """Plan the embedding of texts.

    Args:
        request: The texts.
        window: Tokens that the model takes as it is loaded.
        maximum: Tokens that it takes at most, where known.

    Raises:
        LMStudioContextOverflowError: If one is too long and the policy is `error`.
    """
    fitting, limit = list(request.texts), max(window - MARKS, 0)
    suspects: list[int] = [index for index, text in enumerate(fitting) if not surely_fits(_size(text), window)]
    while suspects:
        counts = yield [fitting[index] for index in suspects]
        long: dict[int, int] = {index: count for index, count in zip(suspects, counts, strict=True) if count > limit}
        hopeless = any(not fitting[index] for index in long)  # cut to nothing, and still too long
        if long and (request.policy == "error" or hopeless):
            index, count = next(iter(long.items()))
            raise request.too_long(index, count + MARKS, window, maximum)
        for index, count in long.items():
            fitting[index] = shortened(fitting[index], count, limit)
        suspects = [index for index in suspects if index in long]
    return fitting


def shortened(text: str, count: int, limit: int) -> str:
    """Return the beginning of a text that should have at most `limit` tokens, and is shorter in any case."""
    return text[: min(len(text) * limit // count, len(text) - 1)]


def carried_out(steps: Generator[AskedT, Any, list[str]], answer: Callable[[AskedT], Any]) -> list[str]:
    """Carry out a plan, answering in this thread; return what to embed."""
    try:
        asked = next(steps)
        while True:
            asked = steps.send(answer(asked))
    except StopIteration as done:
        fitting: list[str] = done.value
        return fitting


async def acarried_out(
    steps: Generator[AskedT, Any, list[str]], answer: Callable[[AskedT], Awaitable[Any]]
) -> list[str]:
    """Carry out a plan, awaiting the answers; return what to embed."""
    try:
        asked = next(steps)
        while True:
            asked = steps.send(await answer(asked))
    except StopIteration as done:
        fitting: list[str] = done.value
        return fitting
