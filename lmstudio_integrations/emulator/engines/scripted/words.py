"""Tokens, vectors and log-probabilities of scripted models: words with the spaces before them, and bags of words.

Pure functions of the text, the same in every process and on every machine.
"""

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

_WORD = re.compile(r"\s*\S+|\s+")
_NAME = re.compile(r"\w+")

START_TOKEN, END_TOKEN = 1, 2
"""The tokens that an embedding model puts around a text."""

_FIRST_WORD = 3
_TOKENS = 2**31 - _FIRST_WORD

_OTHERS = (" the", " a", " of", " and", " to", " in", " is", " it", " that", " not")
"""The other candidates of a token."""

_IMPOSSIBLE = -1000.0
"""The logarithm of a probability of 0: JSON has no infinity."""

_SHORT_WORD_WEIGHT, _TRIGRAM_WEIGHT = 0.3, 0.3


def split(text: str) -> Iterator[str]:
    """Yield the tokens of a text one by one; joined they are the text. A list would take thirty times its memory."""
    return (match.group() for match in _WORD.finditer(text))


def count(text: str) -> int:
    """Return how many tokens a text has."""
    return sum(1 for _ in _WORD.finditer(text))


def token_id(token: str) -> int:
    """Return the number of a token."""
    return _FIRST_WORD + _hash(token) % _TOKENS


def log_probs(probabilities: Mapping[str, float], candidates: int) -> dict[str, Any]:
    """Return an entry of `fragment.tokens` (docs/protocol.md#fragments).

    Args:
        probabilities: Those of the written token, which is the first, and of the others, by their texts.
        candidates: How many of them to list.
    """
    listed: list[dict[str, Any]] = [
        {"text": token, "id": token_id(token), "logProb": math.log(probability) if probability else _IMPOSSIBLE}
        for token, probability in islice(probabilities.items(), max(candidates, 1))
    ]
    return {**listed[0], "candidates": listed} if candidates else listed[0]


def probabilities_of(token: str) -> dict[str, float]:
    """Return the probabilities of a token and of ten others, made up of the token alone.

    Two runs agree, and they add up to at most 1.
    """
    probability = 0.5 + token_id(token) % 499 / 1000
    others = (other for other in _OTHERS if other != token)
    return {token: probability, **{other: (1 - probability) / 2**rank for rank, other in enumerate(others, 1)}}


def coverage(query: str, text: str) -> float:
    """Return how much of a query a text has, from 0 to 1: of its words, and of the trigrams in them."""
    features, features_of_text = list(_features(query)), {feature for feature, _ in _features(text)}
    whole = sum(weight for _, weight in features)
    return sum(weight for feature, weight in features if feature in features_of_text) / whole if whole else 0.0


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
    for word, times in Counter(match.group() for match in _NAME.finditer(text.lower())).items():
        yield word, times * (1.0 if len(word) > 3 else _SHORT_WORD_WEIGHT)
        delimited = f"^{word}$"
        for start in range(len(delimited) - 2):
            yield f"…{delimited[start : start + 3]}", times * _TRIGRAM_WEIGHT


def _hash(text: str) -> int:
    # Lone surrogates may come from a client; they are text like any other here.
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))
