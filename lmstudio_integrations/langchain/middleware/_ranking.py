"""Ranks tools by a query: by their words, and by vectors where there are any. Pure."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmstudio_integrations._support.text import one_line
from lmstudio_integrations.client.predictions.call_repair.names import words_of
from lmstudio_integrations.client.predictions.tool_parser.tools import OfferedTool

_ENDINGS = ("ations", "ation", "ing", "ies", "es", "ed", "s", "e", "y")
"""Endings that are taken from a word of which at least three letters remain."""

_K, _B = 1.2, 0.5
"""The constants of BM25: how fast the count of a word saturates, and how much a long text is held against it."""


_LITTLE = """
a about all an and any are as at be by can could do does every for from give have how i if in into is it its let like
make many me much my need of on or our please show so some tell that the their them there these they this to up us want
was we what when where which who will with would you your
"""
_COMMON = frozenset(_LITTLE.split())
"""Words of a request that say nothing about a tool."""

_OF_WORDS = 0.2
"""How much the words count beside the cosine of vectors."""

_MOST_EMBEDDED = 600
"""Characters of a text that are embedded: about half of what small models read."""

_TINY = 1e-12


def name_and_description(function: Mapping[str, Any]) -> str:
    """Return the text of a function that is embedded: the words of its name, and the beginning of its description.

    Args:
        function: The function in OpenAI's form.
    """
    name, description = " ".join(words_of(function["name"])), one_line(function.get("description") or "")
    return embeddable(f"{name}: {description}" if description else name)


def embeddable(text: str) -> str:
    """Return the beginning of a text that no embedding model finds too long."""
    return text[:_MOST_EMBEDDED]


def all_words(function: Mapping[str, Any]) -> str:
    """Return the text of a function that is searched for words, also for those of its parameters."""
    return " ".join((function["name"], str(function.get("description") or ""), *OfferedTool(function).parameters))


def by_words(texts: Sequence[str], query: str) -> list[float]:
    """Return how well each text fits a query by the words that they share (BM25), from 0 to about 1."""
    counts = [Counter(_words(text)) for text in texts]
    lengths = [sum(count.values()) for count in counts]
    mean = sum(lengths) / max(1, len(lengths)) or 1.0
    scores, most = [0.0] * len(texts), _TINY
    for word in set(_words(query)):
        having = sum(word in count for count in counts)
        weight = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        most += weight
        for at, count in enumerate(counts):
            often = count[word]
            scores[at] += weight * often * (_K + 1) / (often + _K * (1 - _B + _B * lengths[at] / mean))
    return [score / most for score in scores]


def by_vectors(vectors: Sequence[Sequence[float]], query: Sequence[float]) -> list[float]:
    """Return how near each vector is to that of a query: their cosine."""
    rows, other = np.asarray(vectors), np.asarray(query)
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(other)
    near: list[float] = (rows @ other / np.maximum(lengths, _TINY)).tolist()
    return near


def best(words: Sequence[float], vectors: Sequence[float] | None, most: int) -> list[int]:
    """Return the indices of the best texts by their scores, best first; without vectors, those that share a word."""
    near = vectors or [0.0] * len(words)
    scores = [_OF_WORDS * word + vector for word, vector in zip(words, near, strict=True)]
    matching = [at for at, score in enumerate(scores) if score > 0]
    return sorted(matching, key=lambda at: -scores[at])[:most]


def _words(text: str) -> list[str]:
    return [_stem(word) for word in words_of(text) if word not in _COMMON]


def _stem(word: str) -> str:
    ending = next((each for each in _ENDINGS if word.endswith(each) and len(word) - len(each) >= 3), "")
    return word.removesuffix(ending)
