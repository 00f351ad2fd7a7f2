"""Documents among the uploaded files: parse them, search in them (docs/protocol.md#file-endpoints)."""

import asyncio
import heapq
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator.engines.base import EngineModel
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.server.context import Context, OpenChannel
from lmstudio_integrations.protocol.requests import ParseDocument, Retrieve, UploadedFile
from lmstudio_integrations.types.models import ModelQuery, QuerySpecifier, by_identifier

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


PARSER = {"library": "lmstudio-integrations", "version": "1"}
"""The one parser; it reads plain text and Markdown."""

_PARSABLE = {"text/plain", "text/other"}


_Embedded = tuple[TextChunk, Sequence[float]]
"""A chunk and its vector."""


async def get_document_parsing_library(context: Context, parameter: UploadedFile) -> dict[str, Any]:
    """Return the parser for an upload, which is the same for all."""
    _text(context, parameter["fileIdentifier"])
    return PARSER


def _text(context: Context, identifier: str) -> str:
    """Return the text of an upload.

    Raises:
        WireError: If there is no such upload, or it is not text.
    """
    upload = context.client.upload(identifier)
    if upload.file_type not in _PARSABLE:
        raise WireError(
            f'The file "{upload.name}" of type {upload.file_type} cannot be parsed',
            suggestion="Upload plain text or Markdown.",
        )
    try:
        return upload.data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WireError(f'The file "{upload.name}" is not UTF-8 text', cause=str(error)) from error


async def parse_document(context: Context, channel: OpenChannel, parameter: ParseDocument) -> None:
    """Return the text of an upload as that of a document."""
    requested = parameter["parseOpts"].get("parserId")
    if requested is not None and requested["library"] != PARSER["library"]:
        raise WireError(f'This server has no parser "{requested["library"]}"')
    text = _text(context, parameter["fileIdentifier"])
    channel.send({"type": "parserLoaded", "parser": PARSER})
    channel.send({"type": "progress", "progress": 1})
    channel.send({"type": "result", "content": text, "parser": PARSER})


async def retrieve(context: Context, channel: OpenChannel, parameter: Retrieve) -> None:
    """Search uploads for the chunks most similar to a query, with a loaded embedding model."""
    config = RetrievalConfig.read(parameter["config"].as_mapping())
    specifier = by_identifier(config.model) if config.model else QuerySpecifier(query=ModelQuery())
    instance = context.registry.find("embedding", specifier)
    if instance.device is not context.registry.local:
        raise WireError("Model does not exist")  # so 0.4.12 (bug-tracker#1895)
    with channel.cancellable("The retrieval was cancelled."):
        async with instance.use(channel.scope, "computingEmbedding"):
            channel.send({"type": "onFileProcessList", "indices": list(range(len(parameter["fileIdentifiers"])))})
            chunks: list[_Embedded] = []
            for index, identifier in enumerate(parameter["fileIdentifiers"]):
                text = _text(context, identifier)
                chunks_of_file = await asyncio.to_thread(chunk, text, index, config)
                chunks += await _process(channel, instance.model, chunks_of_file, index)
            channel.send({"type": "onSearchingStart"})
            query = await instance.model.embed(parameter["query"])
            entries = await asyncio.to_thread(rank, query, chunks, config.limit)
            channel.send({"type": "onSearchingEnd"})
            channel.send({"type": "result", "result": {"entries": entries}})


async def _process(channel: OpenChannel, model: EngineModel, chunks: list[TextChunk], index: int) -> list[_Embedded]:
    """Return the chunks of one file with their vectors, and report progress."""
    channel.send({"type": "onFileProcessingStart", "index": index})
    for step in ("loading", "chunking"):
        channel.send({"type": "onFileProcessingStepStart", "index": index, "step": step})
        channel.send({"type": "onFileProcessingStepEnd", "index": index, "step": step})
    step = "embedding"
    channel.send({"type": "onFileProcessingStepStart", "index": index, "step": step})
    pairs: list[_Embedded] = []
    for done, chunk in enumerate(chunks, 1):
        # An array takes a quarter of the memory of a list.
        pairs.append((chunk, array("d", await model.embed(chunk.content))))
        progress = {"index": index, "step": step, "progress": done / len(chunks)}
        channel.send({"type": "onFileProcessingStepProgress", **progress})
        # Send the packet and handle a cancel before the next chunk, even if the model never waits.
        await asyncio.sleep(0)
    channel.send({"type": "onFileProcessingStepEnd", "index": index, "step": step})
    channel.send({"type": "onFileProcessingEnd", "index": index})
    return pairs
