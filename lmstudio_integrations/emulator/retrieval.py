"""Search in documents: texts cut into pieces, pieces ranked by the nearness of their vectors to the query's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmstudio_integrations._typeguards import is_object

_CHUNK_SIZE, _OVERLAP, _LIMIT = 512, 100, 5

_MOST_REPEATS = 4
"""No part of a text is in more pieces than so many, however large an overlap is asked for."""


@dataclass(frozen=True, slots=True)
class Config:
    """How to cut (lengths in characters), how much to return, and the embedding model, any if none is named."""

    chunk_size: int = _CHUNK_SIZE
    overlap: int = _OVERLAP
    limit: int = _LIMIT
    model: str | None = None

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> "Config":
        """Read the settings of a request (protocol §5.6); what is not set or cannot be has its default."""
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
class Chunk:
    """A piece of a document, with the lines that it spans, counted from 1."""

    source: int
    content: str
    lines: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Hit:
    """A piece that was found, and how well it fits, at most 1."""

    chunk: Chunk
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Return the wire form."""
        first, last = self.chunk.lines
        return {
            "content": self.chunk.content,
            "score": self.score,
            "sourceIndex": self.chunk.source,
            "lineNumber": first if first == last else [first, last],
        }


def chunk(text: str, source: int, config: Config, limit: float = math.inf) -> list[Chunk]:
    """Cut a text into overlapping chunks, at the end of a paragraph, line or word where there is one.

    Stops when there are more than `limit`.
    """
    chunks: list[Chunk] = []
    start = counted = 0
    line = 1
    step = max(1, config.chunk_size // _MOST_REPEATS)
    while start < len(text) and len(chunks) <= limit:
        end = _end(text, start, config.chunk_size)
        piece = text[start:end].lstrip()
        if piece:
            begin = end - len(piece)
            line += text.count("\n", counted, begin)
            counted = begin
            piece = piece.rstrip()
            chunks.append(Chunk(source, piece, (line, line + piece.count("\n"))))
        if end >= len(text):
            break
        start = max(end - config.overlap, start + step)
    return chunks


def _end(text: str, start: int, size: int) -> int:
    if start + size >= len(text):
        return len(text)
    for separator in ("\n\n", "\n", " "):
        found = text.rfind(separator, start + size // 2, start + size)
        if found > start:
            return found + len(separator)
    return start + size


def rank(query: Sequence[float], chunks: Sequence[tuple[Chunk, Sequence[float]]], limit: int) -> list[Hit]:
    """Return the pieces nearest to a query, best first."""
    hits = [Hit(chunk, cosine(query, vector)) for chunk, vector in chunks]
    return sorted(hits, key=lambda hit: -hit.score)[:limit]


def cosine(left: Sequence[float], right: Sequence[float]) -> float:
    """Return how near two vectors are, at most 1; nothing is near a vector of zeros."""
    product = sum(one * other for one, other in zip(left, right, strict=True))
    length = math.hypot(*left) * math.hypot(*right)
    return product / length if length else 0.0
