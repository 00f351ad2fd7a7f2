"""Uploading: bytes to a file handle that can be put into a message (protocol §4.6)."""

import base64
import binascii
import re
import uuid
from os import PathLike
from pathlib import Path
from typing import IO, Any

from lmstudio_integrations.client._flows import Flow, ask, understanding
from lmstudio_integrations.client._link import Link
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError
from lmstudio_integrations.protocol.endpoints import UploadFile
from lmstudio_integrations.types.chat import FileHandle

FileInput = str | PathLike[str] | bytes | IO[bytes]
"""A path, a data URL, the content itself, or an open binary file."""

_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)
_SIGNATURES: tuple[tuple[bytes, int, str], ...] = (
    (b"\xff\xd8\xff", 0, "jpg"),
    (b"\x89PNG\r\n\x1a\n", 0, "png"),
    (b"WEBP", 8, "webp"),
)
_EXTENSIONS = {"jpg": ("jpg", "jpeg"), "png": ("png",), "webp": ("webp",)}


def prepare_image(link: Link[Any], source: FileInput, name: str | None) -> Flow[FileHandle]:
    """Upload a picture. Its name gets the extension of what it really is, because some models go by that."""
    content, given = read(source)
    kind = image_kind(content)
    if kind is None:
        shown = name or given or "the given bytes"
        raise LMStudioValueError(f"{shown} is no JPEG, PNG or WebP picture; convert it first")
    return (yield from _upload(link, _with_extension(name or given, kind), content))


def read(source: FileInput) -> tuple[bytes, str | None]:
    """Return the content of a source, and its name where it has one.

    Raises:
        LMStudioOSError: If a file cannot be read.
        LMStudioValueError: If a data URL is broken.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), None
    if isinstance(source, str) and source.startswith("data:"):
        return _from_data_url(source), None
    if isinstance(source, str | PathLike):
        try:
            return Path(source).read_bytes(), Path(source).name
        except OSError as error:
            raise LMStudioOSError(f"cannot read {str(source)!r}: {error.strerror or error}") from error
    name = getattr(source, "name", None)
    return source.read(), Path(name).name if isinstance(name, str) else None


def image_kind(content: bytes) -> str | None:
    """Return the extension of a picture by its first bytes; `None` if it is none that LM Studio takes."""
    return next((kind for sign, at, kind in _SIGNATURES if content[at : at + len(sign)] == sign), None)


def _from_data_url(url: str) -> bytes:
    head = _DATA_URL.match(url)
    if head is None:
        raise LMStudioValueError(f"a data URL must be data:<type>;base64,<content>; got {url[:40]!r}")
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except binascii.Error as error:
        raise LMStudioValueError(f"the data URL's content is not base64: {error}") from error


def _with_extension(name: str | None, kind: str) -> str:
    if name is None:
        return f"{uuid.uuid4()}.{kind}"
    return name if Path(name).suffix.lower().lstrip(".") in _EXTENSIONS[kind] else f"{name}.{kind}"


def _upload(link: Link[Any], name: str, content: bytes) -> Flow[FileHandle]:
    parameter = UploadFile(name=name, content_base64=base64.b64encode(content).decode())
    answer = yield from ask(link, "files", "uploadFileBase64", parameter, doing="File upload")
    with understanding("File upload"):
        return FileHandle(
            name=name,
            identifier=answer["identifier"],
            size_bytes=answer["sizeBytes"],
            file_type=answer["fileType"],
        )
