"""Texts that are too long for an embedding model: found, refused or cut. Pure; who carries it out counts the tokens.

A plan is a generator: it yields texts whose tokens are to be counted, is sent the counts, and returns what to embed.
"""

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

from lmstudio_integrations.errors import LMStudioContextOverflowError

AskedT = TypeVar("AskedT")
LengthPolicy: TypeAlias = Literal["error", "truncate", "pass"]
Plan: TypeAlias = Generator[list[str], list[int], list[str]]

MARKS = 2
"""Tokens that a model puts around a text."""

ALWAYS_FITS = 60
"""A text of so many bytes has at most as many tokens, and every model takes them."""


def longest(texts: Sequence[str]) -> int:
    """Return the bytes of the longest text."""
    return max(map(_size, texts), default=0)


def surely_fits(size: int, window: int) -> bool:
    """Whether a text of so many bytes fits a window: no text has more tokens than bytes."""
    return size <= window - MARKS


def _size(text: str) -> int:
    # What was read from documents may hold half a surrogate pair.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def plan(texts: Sequence[str], window: int, policy: LengthPolicy) -> Plan:
    """Plan the embedding of texts.

    Args:
        texts: The texts.
        window: Tokens that the model takes.
        policy: What to do with those that are too long.

    Raises:
        LMStudioContextOverflowError: If one is too long and the policy is `error`.
    """
    fitting, limit = list(texts), max(window - MARKS, 0)
    suspects: list[int] = [index for index, text in enumerate(texts) if not surely_fits(_size(text), window)]
    while suspects:
        counts = yield [fitting[index] for index in suspects]
        long: dict[int, int] = {index: count for index, count in zip(suspects, counts, strict=True) if count > limit}
        hopeless = any(not fitting[index] for index in long)  # cut to nothing, and still too long
        if long and (policy == "error" or hopeless):
            index, count = next(iter(long.items()))
            raise LMStudioContextOverflowError(
                f"text {index} has {count + MARKS} tokens, and the model takes {window}; split it, load the model with "
                "a larger context_length, or set length_policy='truncate'",
                used=count + MARKS,
                limit=window,
            )
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
