"""Uploaded files, for conversations and for parsing and searching on the server (`docs/protocol.md#file-endpoints`)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from pydantic import PrivateAttr

from lmstudio_integrations.types._wire_model import TaggedModel

FileType = Literal["image", "text/plain", "application/pdf", "application/word", "text/other", "unknown"]


class ImageFormat(NamedTuple):
    """A format of images that LM Studio supports.

    Attributes:
        media_type: Its name in data URLs.
        suffixes: Of files in this format; the first is the usual one.
        signature: The bytes that show it.
        position: Where they are.
    """

    media_type: str
    suffixes: tuple[str, ...]
    signature: bytes
    position: int = 0


IMAGE_FORMATS = (
    ImageFormat("image/jpeg", (".jpg", ".jpeg"), b"\xff\xd8\xff"),
    ImageFormat("image/png", (".png",), b"\x89PNG\r\n\x1a\n"),
    ImageFormat("image/webp", (".webp",), b"WEBP", position=8),
)

INLINE = "base64:"
"""The prefix of file identifiers that contain the file itself."""


def image_format(content: bytes | bytearray) -> ImageFormat | None:
    """Return the format of an image by its first bytes; `None` if LM Studio does not support it."""
    return next((each for each in IMAGE_FORMATS if content.startswith(each.signature, each.position)), None)


@dataclass(eq=False)
class Origin:
    """The source of an uploaded file, from which it is uploaded again. All copies of its handle share it.

    Attributes:
        name: The file's name.
        read: Returns the content.
        upload: Its identifier, and where a server knows it by that (`ClientContext.socket_scope`). Replaced as one:
            threads may use a file with several servers.
        server: The address of the server that it was uploaded to first; `None` is the one on this machine.
    """

    name: str
    read: Callable[[], bytes] = field(repr=False)
    upload: tuple[str, object] = field(repr=False)
    server: object = field(default=None, repr=False)

    def __deepcopy__(self, _memo: object) -> "Origin":
        return self


class FileHandle(TaggedModel):
    """An uploaded file, for a user message. `size_bytes` is the size of the decoded content.

    The server keeps it while the handle is alive. If the connection is lost meanwhile, the file is uploaded again
    before its next use. If it was given by its path, it is then read again, so do not change it on the disk.
    """

    type: Literal["file"] = "file"
    name: str
    identifier: str
    size_bytes: int
    file_type: FileType
    _origin: Origin | None = PrivateAttr(default=None)

    @property
    def origin(self) -> Origin | None:
        """The source of the file; `None` for a handle that was built by hand."""
        return self._origin

    def __getstate__(self) -> dict[Any, Any]:
        """Drop the origin, because another process has other connections."""
        return {**super().__getstate__(), "__pydantic_private__": {"_origin": None}}

    def with_origin(self, origin: Origin) -> "FileHandle":
        """Return the handle, bound to its origin."""
        handle = self.model_copy()
        handle._origin = origin  # noqa: SLF001 - the same class
        return handle
