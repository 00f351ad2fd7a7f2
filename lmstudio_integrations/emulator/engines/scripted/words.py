"""Tokens, vectors and log-probabilities of scripted models: words with the spaces before them, and bags of words.

Pure functions of the text, the same in every process and on every machine.
"""

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

_WORD = re.compile(r"\s*\S+|\s+")
_NAME = re.compile(r"\w+")

START_TOKEN, END_TOKEN = 1, 2
"""The tokens that an embedding model puts around a text."""

_FIRST_WORD = 3
_TOKENS = 2**31 - _FIRST_WORD

_OTHERS = (" the", " a", " of", " and", " to", " in", " is", " it", " that", " not")
"""The other candidates of a token."""

_SHORT_WORD_WEIGHT, _TRIGRAM_WEIGHT = 0.3, 0.3


def split(text: str) -> Iterator[str]:
    """Yield the tokens of a text one by one; joined they are the text. A list would take thirty times its memory."""
    return (found.group() for found in _WORD.finditer(text))


def count(text: str) -> int:
    """Return how many tokens a text has."""
    return sum(1 for _ in _WORD.finditer(text))


def token_id(token: str) -> int:
    """Return the number of a token."""
    return _FIRST_WORD + _hash(token) % _TOKENS


def log_probs(token: str, candidates: int) -> dict[str, Any]:
    """Return an entry of `fragment.tokens` (docs/protocol.md#fragments), made up of the token alone.

    Two runs agree, and the probabilities add up to at most 1.

    Args:
        token: Its text.
        candidates: How many of the most probable tokens to list, the written one first. There are eleven.
    """
    number = token_id(token)
    probability = 0.5 + number % 499 / 1000
    written: dict[str, Any] = {"text": token, "id": number, "logProb": math.log(probability)}
    if not candidates:
        return written
    others = [other for other in _OTHERS if other != token][: candidates - 1]
    rest = [
        {"text": other, "id": token_id(other), "logProb": math.log((1 - probability) / 2**rank)}
        for rank, other in enumerate(others, 1)
    ]
    return {**written, "candidates": [written, *rest]}


def embed(text: str, length: int) -> list[float]:
    """Return the vector of a text, of unit length. Texts that share words and letters have similar vectors."""
    vector = [0.0] * length
    for feature, weight in _features(text):
        number = _hash(feature)
        vector[number % length] += weight if number >> 31 else -weight
    norm = math.sqrt(math.fsum(value * value for value in vector))
    if norm == 0:
        return [1.0, *vector[1:]]
    return [value / norm for value in vector]


def _features(text: str) -> Iterator[tuple[str, float]]:
    """Yield the words of a text, short ones with less weight, and their trigrams, so that inflected forms are alike."""
    for word, times in Counter(found.group() for found in _NAME.finditer(text.lower())).items():
        yield word, times * (1.0 if len(word) > 3 else _SHORT_WORD_WEIGHT)
        delimited = f"^{word}$"
        for start in range(len(delimited) - 2):
            yield f"…{delimited[start : start + 3]}", times * _TRIGRAM_WEIGHT


def _hash(text: str) -> int:
    # Lone surrogates may come from a client; they are text like any other here.
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))
