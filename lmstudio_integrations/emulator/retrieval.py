"""Search in documents without a model: pieces of text, ranked by the words that they share with the query."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmstudio_integrations._narrow import is_object

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Config:
    """How to cut and how much to return; lengths in characters."""

    chunk_size: int = 512
    overlap: int = 100
    limit: int = 5

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> "Config":
        """Read the settings of a request (protocol §5.6); what is not set or cannot be has its default."""
        method = fields.get("retrieval.chunkingMethod")
        method = method if is_object(method) else {}
        size = _positive(method.get("chunkSize"), cls.chunk_size)
        overlap = method.get("chunkOverlap")
        return cls(
            chunk_size=size,
            overlap=overlap if isinstance(overlap, int) and 0 <= overlap < size else min(cls.overlap, size - 1),
            limit=_positive(fields.get("retrieval.limit"), cls.limit),
        )


def _positive(value: object, default: int) -> int:
    return int(value) if isinstance(value, int | float) and value >= 1 else default


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document, with the lines that it spans, counted from 1."""

    source: int
    content: str
    lines: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Hit:
    """A piece that was found, and how well it fits, 0 to 1."""

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


def chunk(text: str, source: int, config: Config) -> list[Chunk]:
    """Cut a text into overlapping pieces, at the end of a paragraph, line or word where there is one."""
    chunks: list[Chunk] = []
    start = 0
    while start < len(text):
        end = _end(text, start, config.chunk_size)
        piece = text[start:end]
        if piece.strip():
            first = text.count("\n", 0, start) + 1
            chunks.append(Chunk(source, piece.strip(), (first, first + piece.rstrip().count("\n"))))
        if end >= len(text):
            break
        start = max(end - config.overlap, start + 1)
    return chunks


def _end(text: str, start: int, size: int) -> int:
    if start + size >= len(text):
        return len(text)
    for separator in ("\n\n", "\n", " "):
        found = text.rfind(separator, start + size // 2, start + size)
        if found > start:
            return found + len(separator)
    return start + size


def search(query: str, chunks: Sequence[Chunk], limit: int) -> list[Hit]:
    """Return the best pieces, best first; pieces that share no word with the query are left out."""
    wanted = _words(query)
    hits = [Hit(chunk, _cosine(wanted, _words(chunk.content))) for chunk in chunks]
    return sorted((hit for hit in hits if hit.score > 0), key=lambda hit: -hit.score)[:limit]


def _words(text: str) -> Counter[str]:
    return Counter(word.casefold() for word in _WORD.findall(text))


def _cosine(left: Counter[str], right: Counter[str]) -> float:
    shared = sum(left[word] * right[word] for word in left.keys() & right.keys())
    return shared / math.sqrt(_square(left) * _square(right)) if shared else 0.0


def _square(words: Counter[str]) -> int:
    return sum(count * count for count in words.values())
