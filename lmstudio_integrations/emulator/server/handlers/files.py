"""Uploaded files: store them, parse them, search in them (docs/protocol.md#file-endpoints)."""

import asyncio
import base64
import mimetypes
from array import array
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from lmstudio_integrations.emulator.engines.base import EngineModel
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.server import retrieval
from lmstudio_integrations.emulator.server.clients import Upload
from lmstudio_integrations.emulator.server.context import Context, OpenChannel
from lmstudio_integrations.protocol.requests import LocalFile, ParseDocument, Retrieve, UploadedFile, UploadFile
from lmstudio_integrations.types.files import IMAGE_FORMATS, image_format
from lmstudio_integrations.types.models import ModelQuery, QuerySpecifier, by_identifier

PARSER = {"library": "lmstudio-integrations", "version": "1"}
"""The one parser; it reads plain text and Markdown."""

_TYPES = {
    ".txt": "text/plain",
    ".md": "text/plain",
    ".markdown": "text/plain",
    ".pdf": "application/pdf",
    ".doc": "application/word",
    ".docx": "application/word",
    **{suffix: "image" for each in IMAGE_FORMATS for suffix in each.suffixes},
}
_PARSABLE = {"text/plain", "text/other"}


_Embedded = tuple[retrieval.TextChunk, Sequence[float]]
"""A chunk and its vector."""


async def upload_file_base64(context: Context, parameter: UploadFile) -> dict[str, Any]:
    """Store a file for this client; the same content gets a new identifier each time."""
    try:
        data = base64.b64decode(parameter["contentBase64"], validate=True)
    except ValueError as error:  # characters beyond ASCII raise it as well
        raise WireError(f'The content of "{parameter["name"]}" is not base64', cause=str(error)) from error
    file_type = _type_of(parameter["name"], data)
    identifier = context.client.store(Upload(parameter["name"], data, file_type))
    return {"identifier": identifier, "fileType": file_type, "sizeBytes": len(data)}


def _type_of(name: str, data: bytes) -> str:
    """Return the type of a file: `image` by content, else by extension, else `unknown`."""
    if image_format(data):
        return "image"
    file_type = _TYPES.get(PurePath(name).suffix.lower())
    if file_type:
        return file_type
    guessed = mimetypes.guess_type(name)[0] or ""
    return "text/other" if guessed.startswith("text/") else "unknown"


async def get_local_file_absolute_path(context: Context, parameter: LocalFile) -> dict[str, Any]:
    """Return the path of an upload on this machine, valid until its client disconnects."""
    return {"path": str(context.client.path(parameter["fileName"], context.state.upload_folder))}


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
    config = retrieval.RetrievalConfig.read(parameter["config"].as_mapping())
    specifier = by_identifier(config.model) if config.model else QuerySpecifier(query=ModelQuery())
    instance = context.registry.find("embedding", specifier)
    with channel.cancellable("The retrieval was cancelled."):
        async with instance.use(context.client.identifier, channel.scope, "computingEmbedding"):
            channel.send({"type": "onFileProcessList", "indices": list(range(len(parameter["fileIdentifiers"])))})
            chunks: list[_Embedded] = []
            for index, identifier in enumerate(parameter["fileIdentifiers"]):
                text = _text(context, identifier)
                chunks_of_file = await asyncio.to_thread(retrieval.chunk, text, index, config)
                chunks += await _process(channel, instance.model, chunks_of_file, index)
            channel.send({"type": "onSearchingStart"})
            query = await instance.model.embed(parameter["query"])
            entries = await asyncio.to_thread(retrieval.rank, query, chunks, config.limit)
            channel.send({"type": "onSearchingEnd"})
            channel.send({"type": "result", "result": {"entries": entries}})


async def _process(
    channel: OpenChannel, model: EngineModel, chunks: list[retrieval.TextChunk], index: int
) -> list[_Embedded]:
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
