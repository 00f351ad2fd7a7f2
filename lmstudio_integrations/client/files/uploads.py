"""Files: upload them, also again after a lost connection; and the images of a conversation.

`fetch.py` downloads an image that is given by its URL. `predictions/` calls both.
"""

import asyncio
import base64
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import unquote
from weakref import WeakValueDictionary

from lmstudio_integrations._support.environment import regular
from lmstudio_integrations._support.installation import package_command
from lmstudio_integrations._support.leaves import MissingLeafError, door
from lmstudio_integrations._support.secrets import redacted_url
from lmstudio_integrations._support.text import shortened
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.support.arguments import (
    list_of,
    optional_text,
)
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioFileExpiredError,
    LMStudioImageDownloadError,
    LMStudioOSError,
    LMStudioServerError,
    LMStudioTimeoutError,
    LMStudioValueError,
)
from lmstudio_integrations.protocol.requests import UploadFile
from lmstudio_integrations.types.chat import WireHistory
from lmstudio_integrations.types.files import FileHandle, Origin, image_format

FileInput = str | PathLike[str] | bytes | IO[bytes]
"""A path, a data URL, the content, or an open binary file."""

origins: WeakValueDictionary[str, Origin] = WeakValueDictionary()
"""The sources of the uploaded files by their identifiers: the messages of frameworks have nothing else of a file."""


def prepare_image(operation: Operation, source: FileInput, name: str | None) -> Flow[FileHandle]:
    """Upload an image. Its name gets the extension of its real type: servers may decide by the name what a file is."""
    content, default_name = yield from _content(operation, source)
    name, image_type = optional_text(name, "name"), image_format(content)
    if image_type is None:
        named = name or default_name
        shown = f"{shortened(named)} is" if named else f"{len(content)} bytes that begin with {content[:16]!r} are"
        raise LMStudioValueError(f"{shown} not a JPEG, PNG or WebP image; convert {'it' if named else 'them'} first")
    name = name or default_name or str(uuid.uuid4())
    if Path(name).suffix.lower() not in image_type.suffixes:
        name = f"{name}{image_type.suffixes[0]}"
    return (yield from _upload(operation, source, content, name))


def prepare_file(operation: Operation, source: FileInput, name: str | None) -> Flow[FileHandle]:
    """Upload a file of any type."""
    content, default_name = yield from _content(operation, source)
    name = optional_text(name, "name") or default_name or str(uuid.uuid4())
    return (yield from _upload(operation, source, content, name))


def _content(operation: Operation, source: FileInput) -> Flow[tuple[bytes, str | None]]:
    """Read a source; a file in a thread, because the caller may be an event loop."""
    if isinstance(source, str | PathLike):
        return (yield from operation.context.run_task(lambda: asyncio.to_thread(read_source, source)))
    return read_source(source)


def read_source(source: FileInput) -> tuple[bytes, str | None]:
    """Return the content of a source, and its name if it has one.

    Raises:
        LMStudioOSError: If a file cannot be read.
        LMStudioValueError: If it is empty, or a data URL is broken.
    """
    content, name = _read(source)
    if not content:
        remedy = "; if it was read before, call seek(0) first" if hasattr(source, "read") else ""
        raise LMStudioValueError(f"{_display_name(source)} is empty, so there is nothing to upload{remedy}")
    return content, name


def _read(source: FileInput) -> tuple[bytes, str | None]:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), None
    if isinstance(source, str) and source[:5].lower() == "data:":
        return decode_data_url(source), None
    try:
        if isinstance(source, str | PathLike):
            return regular(Path(source)).read_bytes(), Path(source).name
        content = source.read() if hasattr(source, "read") else None
    except (OSError, ValueError) as error:
        prefix = missing_prefix(source) if isinstance(source, str) else None
        if prefix is not None:
            raise LMStudioValueError(f"the given text is bare base64; put {prefix} before it, or pass bytes") from error
        reason = getattr(error, "strerror", None) or error
        raise LMStudioOSError(f"cannot read {_display_name(source)}: {reason}") from error
    if not isinstance(content, bytes):
        raise LMStudioValueError(
            f"a file is a path, bytes, a data URL or a file open in binary mode; got {_display_name(source)}"
        )
    name = getattr(source, "name", None)
    return content, Path(name).name if isinstance(name, str) else None


def _display_name(source: FileInput) -> str:
    return shortened(repr(str(source) if isinstance(source, PathLike) else source))


def _upload(operation: Operation, source: FileInput, content: bytes, name: str) -> Flow[FileHandle]:
    """Upload a file; its handle can upload it again."""
    scope = operation.context.socket_scope("files")
    handle = yield from _send(operation, name, content)
    reread = (lambda: read_source(source)[0]) if isinstance(source, str | PathLike) else (lambda: content)
    origin = origins[handle.identifier] = Origin(
        name, reread, (handle.identifier, scope), operation.context.target.address
    )
    operation.context.keep_open("files", origin)
    return handle.with_origin(origin)


def _send(operation: Operation, name: str, content: bytes) -> Flow[FileHandle]:
    return (
        yield from operation.call(
            "files",
            "uploadFileBase64",
            UploadFile(name=name, contentBase64=base64.b64encode(content).decode()),
            lambda result: FileHandle(
                name=name,
                identifier=result["identifier"],
                size_bytes=result["sizeBytes"],
                file_type=result["fileType"],
            ),
            label="File upload",
        )
    )


def ensure_uploaded(operation: Operation, handle: FileHandle) -> Flow[FileHandle]:
    """Return a valid handle; upload the file again if the connection was lost meanwhile.

    Raises:
        LMStudioFileExpiredError: If the file cannot be read again.
    """
    if not isinstance(handle, FileHandle):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise LMStudioValueError(f"a file must be prepared first, with prepare_file or prepare_image; got {handle!r}")
    origin = handle.origin
    if origin is None:
        return handle
    identifier, uploaded_to = origin.upload
    scope = operation.context.socket_scope("files")
    if uploaded_to != scope:
        try:
            content = yield from operation.context.run_task(lambda: asyncio.to_thread(origin.read))
        except (OSError, LMStudioValueError) as error:
            raise LMStudioFileExpiredError(
                f"the server has dropped the file {handle.name!r}, and it cannot be read again: {error}"
            ) from error
        identifier = (yield from _send(operation, origin.name, content)).identifier
        origin.upload = identifier, scope
        operation.context.keep_open("files", origin)
    return handle if handle.identifier == identifier else handle.model_copy(update={"identifier": identifier})


def with_valid_files(operation: Operation, history: WireHistory) -> Flow[WireHistory]:
    """Return a conversation with valid file handles."""
    uploaded: dict[str, dict[str, Any]] = {}
    for handle in {handle.identifier: handle for handle in history.files if handle.origin is not None}.values():
        valid = yield from ensure_uploaded(operation, handle)
        if valid.identifier != handle.identifier:
            uploaded[handle.identifier] = valid.to_dict()
    if not uploaded:
        return history
    return history._replace(
        messages=[
            {**message, "content": [uploaded.get(part.get("identifier"), part) for part in message["content"]]}
            for message in history.messages
        ]
    )


_URL_SAFE = str.maketrans("-_", "+/")
_OTHER = r"[^A-Za-z0-9+/]"


def decode_base64(text: str | bytes, what: str) -> bytes:
    """Return what a text holds in base64, in the standard or the URL-safe alphabet.

    White space is skipped, and padding may be missing.

    Args:
        text: The text.
        what: What errors call it.

    Raises:
        LMStudioValueError: If it is not base64.
    """
    text = text.decode("latin-1") if isinstance(text, bytes) else text
    digits = "".join(text.split()).rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError as error:
        other = re.search(_OTHER, digits)
        problem = f"it contains {other[0]!r}" if other else "it was cut off"
        raise LMStudioValueError(f"{what} is not base64: {problem}") from error


def missing_prefix(text: str) -> str | None:
    """Return how the data URL of an image would begin, of which a text has only the base64; `None` if it is no such."""
    try:
        image_type = image_format(decode_base64(text[:32], ""))
    except LMStudioValueError:
        return None
    return image_type and f"data:{image_type.media_type};base64,"


def decode_data_url(url: str) -> bytes:
    """Return the content of a data URL.

    Raises:
        LMStudioValueError: If it is not in base64.
    """
    if not is_base64_url(url):
        raise LMStudioValueError(f"a data URL must be data:<type>;base64,<content>; got {url[:40]!r}")
    return decode_base64(unquote(url.partition(",")[2]), "the data URL's content")


def is_base64_url(url: str) -> bool:
    head = url.partition(",")[0].lower()
    return head.startswith("data:") and head.endswith(";base64")


DOWNLOAD_TIMEOUT = 30.0
"""Seconds for the download of one image, if the call has no `total_timeout`."""

_HTTP = "(?i)https?:"


class PendingImage(NamedTuple):
    """An image that is not uploaded yet.

    Attributes:
        source: The content of a file, its path, or an http or https URL to download it from.
        is_optional: Whether the conversation is sent without it if it cannot be uploaded.
    """

    source: bytes | str | Path
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class PendingHistory:
    """A conversation whose images are not uploaded yet.

    Attributes:
        images: The images.
        encode: Builds the conversation from the handles of the uploaded images, in the order of `images`. A string
            in place of one says why it is not sent.
        allow_private_hosts: Whether images may be downloaded from addresses that are not public.
        files: The files in it that are uploaded already.
        has_reasoning: Whether there are earlier thoughts in it.
    """

    images: Sequence[PendingImage]
    encode: Callable[[Sequence[FileHandle | str]], WireHistory]
    allow_private_hosts: bool = False
    files: Sequence[FileHandle] = ()
    has_reasoning: bool = False

    def without_optional(self, handles: Sequence[FileHandle | str], reason: str) -> WireHistory:
        """Build the conversation without the images that are optional.

        Args:
            handles: What `upload_images` returned.
            reason: Why they are not sent.
        """
        return self.encode(
            [
                reason if image.is_optional and not isinstance(handle, str) else handle
                for image, handle in zip(self.images, handles, strict=True)
            ]
        )


def upload_images(operation: Operation, history: PendingHistory) -> Flow[list[FileHandle | str]]:
    """Upload the images of a conversation; return why an optional one cannot be, in its place."""
    handles: list[FileHandle | str] = []
    for image in history.images:
        handle: FileHandle | str
        try:
            handle = yield from _prepare(
                operation,
                image.source,
                allow_private_hosts=history.allow_private_hosts,
                is_optional=image.is_optional,
            )
        except (LMStudioValueError, LMStudioOSError, LMStudioServerError) as error:
            if not image.is_optional or isinstance(error, LMStudioAuthenticationError):
                raise
            handle = str(error)
        handles.append(handle)
    return handles


def prepare_images(
    operation: Operation, images: Sequence[FileInput], *, allow_private_hosts: bool
) -> Flow[list[FileHandle]]:
    """Upload images; download those that are http or https URLs first."""
    handles: list[FileHandle] = []
    for image in list_of(images, "images"):
        handle = yield from _prepare(operation, image, allow_private_hosts=allow_private_hosts)
        handles.append(handle)
    return handles


def _prepare(
    operation: Operation, source: FileInput, *, allow_private_hosts: bool, is_optional: bool = False
) -> Flow[FileHandle]:
    if isinstance(source, str) and re.match(_HTTP, source):
        source = yield from _download(operation, source, allow_private=allow_private_hosts, is_optional=is_optional)
    return (yield from prepare_image(operation, source, None))


def _download(operation: Operation, url: str, *, allow_private: bool, is_optional: bool) -> Flow[bytes]:
    """Download an image within the rest of the call's `total_timeout`; an optional one takes half of that at most."""
    shown = redacted_url(url)
    try:
        with door("downloads of images"):
            from lmstudio_integrations.client.files.fetch import fetch  # noqa: PLC0415 - httpx: an extra, 90 ms
    except ImportError as error:
        if isinstance(error, MissingLeafError):
            reason = str(error).removesuffix(".")
        else:
            reason = f"this needs {error.name}; run: {package_command(str(error.name))}"
        raise LMStudioImageDownloadError(
            f"cannot download the image {shown}: {reason}, or pass the image's data", url=shown
        ) from error
    total = operation.timeouts.get("total_timeout")
    limit = DOWNLOAD_TIMEOUT if total is None else max(0.0, total - operation.elapsed)
    if is_optional and total is not None:
        limit = min(DOWNLOAD_TIMEOUT, limit / 2)
    connect = operation.timeouts.get("connect_timeout")
    work = partial(fetch, url, allow_private=allow_private, limit=limit, connect_limit=connect)
    try:
        return (yield from operation.context.run_task(work))
    except TimeoutError as error:
        if total is None or is_optional:
            raise LMStudioImageDownloadError(
                f"cannot download the image {shown}: it did not arrive within {limit:g} s; set total_timeout to more "
                "seconds, or pass the image's data",
                url=shown,
            ) from error
        raise LMStudioTimeoutError(
            f"Image download: {shown} did not arrive: total_timeout expired after {total:.12g} s; raise it, or "
            "pass the image's data",
            timeout_name="total_timeout",
            elapsed=operation.elapsed,
        ) from error
