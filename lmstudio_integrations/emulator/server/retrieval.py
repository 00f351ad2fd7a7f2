"""Search in documents: splits texts into chunks and ranks these by the similarity of their vectors to the query."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from lmstudio_integrations._support.typeguards import is_object

_CHUNK_SIZE, _OVERLAP, _LIMIT = 512, 100, 5

_MAX_REPEATS = 4
"""No part of a text is in more chunks, even with a large overlap."""


@dataclass(frozen=True, slots=True)
class RetrievalConfig:
    """How to split texts (in characters), how much to return, and the embedding model; `None` for any loaded one."""

    chunk_size: int = _CHUNK_SIZE
    overlap: int = _OVERLAP
    limit: int = _LIMIT
    model: str | None = None

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> "RetrievalConfig":
        """Read the settings of a request; missing and invalid ones have defaults."""
        method = fields.get("retrieval.chunkingMethod")
        method = method if is_object(method) else {}
        size = _positive(method.get("chunkSize"), _CHUNK_SIZE)
        overlap = method.get("chunkOverlap")
        return cls(
            chunk_size=size,
            overlap=overlap if isinstance(overlap, int) and 0 <= overlap < size else min(_OVERLAP, size - 1),
            limit=_positive(fields.get("retrieval.limit"), _LIMIT),
            model=str(fields.get("retrieval.embeddingModel") or "") or None,
        )


def _positive(value: object, default: int) -> int:
    return int(value) if isinstance(value, int | float) and 1 <= value < math.inf else default


@dataclass(frozen=True, slots=True)
class TextChunk:
    """A chunk of a document, with the lines that it spans, counted from 1."""

    source: int
    content: str
    lines: tuple[int, int]

    def to_dict(self, score: float) -> dict[str, Any]:
        """Return the wire form of a chunk that was found, with its similarity, at most 1."""
        first, last = self.lines
        return {
            "content": self.content,
            "score": score,
            "sourceIndex": self.source,
            "lineNumber": first if first == last else [first, last],
        }


def chunk(text: str, source: int, config: RetrievalConfig) -> list[TextChunk]:
    """Split a text into overlapping chunks, at the end of a paragraph, line or word where possible.

    Stops when there are more than `limit`.
    """
    chunks: list[TextChunk] = []
    start = counted = 0
    line = 1
    step = max(1, config.chunk_size // _MAX_REPEATS)
    while start < len(text):
        end = _end(text, start, config.chunk_size)
        content = text[start:end].lstrip()
        if content:
            begin = end - len(content)
            line += text.count("\n", counted, begin)
            counted = begin
            content = content.rstrip()
            chunks.append(TextChunk(source, content, (line, line + content.count("\n"))))
        if end >= len(text):
            break
        start = max(end - config.overlap, start + step)
    return chunks


def _end(text: str, start: int, size: int) -> int:
    if start + size >= len(text):
        return len(text)
    for separator in ("\n\n", "\n", " "):
        at = text.rfind(separator, start + size // 2, start + size)
        if at > start:
            return at + len(separator)
    return start + size


def rank(
    query: Sequence[float], chunks: Sequence[tuple[TextChunk, Sequence[float]]], limit: int
) -> list[dict[str, Any]]:
    """Return the chunks most similar to a query, best first, in wire form."""
    entries = [chunk.to_dict(cosine(query, vector)) for chunk, vector in chunks]
    return heapq.nlargest(limit, entries, key=itemgetter("score"))


def cosine(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the cosine similarity of two vectors, at most 1; 0 for a vector of zeros."""
    product = sum(one * other for one, other in zip(left, right, strict=True))
    length = math.hypot(*left) * math.hypot(*right)
    return product / length if length else 0.0
