"""How tools are ranked by a query, and shown in the result of `find_tools`. Pure."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lmstudio_integrations._support.text import one_line
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.client.predictions.calls_in_text.call_arguments import words_of

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
    parameters = _object(_object(function.get("parameters")).get("properties"))
    return " ".join((function["name"], str(function.get("description") or ""), *parameters))


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


# The definition of a tool with few tokens -----------------------------------------------------------------------------
# `get_forecast(city: string, days?: integer = 3)`, and below it what the tool and its parameters say about themselves.

_MOST_OF_TOOL, _MOST_OF_PARAMETER = 300, 160
"""Characters of a description that stay."""

_DEPTH = 3
"""How deep objects within objects are written."""


def compact(function: Mapping[str, Any]) -> str:
    """Return the definition of a function in compact form, in one or more lines.

    Args:
        function: The function in OpenAI's form.
    """
    return "\n".join(_lines(function))


def _lines(function: Mapping[str, Any]) -> Iterator[str]:
    schema = _object(function.get("parameters"))
    members = _members(schema, _DEPTH)
    described = _short(function.get("description"), _MOST_OF_TOOL)
    yield f"{function['name']}({members})" + (f" - {described}" if described else "")
    for name, parameter in _object(schema.get("properties")).items():
        text = _short(_object(parameter).get("description"), _MOST_OF_PARAMETER)
        if text:
            yield f"  {name}: {text}"


def _short(text: object, most: int) -> str:
    line = one_line(text or "")
    return line if len(line) <= most else f"{line[:most].rstrip()}…"


def _members(schema: Mapping[str, Any], depth: int) -> str:
    required = schema.get("required") or ()
    return ", ".join(
        f"{name}{'' if name in required else '?'}: {_type(part, depth)}{_default(part)}"
        for name, part in _object(schema.get("properties")).items()
    )


def _object(value: object) -> Mapping[str, Any]:
    return value if is_object(value) else {}


def _default(part: object) -> str:
    value = _object(part).get("default")
    return "" if value is None else f" = {_json(value)}"


def _type(part: object, depth: int) -> str:
    """Return what values a schema allows."""
    if not is_object(part):
        return "any"
    for key in ("anyOf", "oneOf"):
        if is_list(part.get(key)):
            return _either([_type(each, depth) for each in part[key]])
    if is_list(part.get("enum")):
        return _either([_json(value) for value in part["enum"]])
    if "const" in part:
        return _json(part["const"])
    kinds = part.get("type")
    return _either([_of_kind(kind, part, depth) for kind in (kinds if is_list(kinds) else [kinds])])


def _of_kind(kind: object, part: Mapping[str, Any], depth: int) -> str:
    if kind == "array":
        item = _type(part.get("items"), depth)
        return f"({item})[]" if " | " in item else f"{item}[]"
    if kind == "object" and part.get("properties") and depth:
        return f"{{{_members(part, depth - 1)}}}"
    if kind == "string" and part.get("format"):
        return f"string({part['format']})"
    return str(kind) if kind else "any"


def _either(types: Sequence[str]) -> str:
    return " | ".join(dict.fromkeys(types)) or "any"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
