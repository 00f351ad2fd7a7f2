"""A conversation whose images are not uploaded yet. The adapters make it, and the client uploads the images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmstudio_integrations.types.chat import WireHistory
from lmstudio_integrations.types.files import FileHandle


@dataclass(frozen=True, slots=True)
class PendingHistory:
    """A conversation whose images are not uploaded yet.

    Attributes:
        images: The images: the content of a file, or an http or https URL to download it from.
        encode: Builds the conversation from the handles of the uploaded images, in the order of `images`.
        allow_private_hosts: Whether images may be downloaded from addresses that are not public.
        files: The files in it that are uploaded already.
    """

    images: Sequence[bytes | str]
    encode: Callable[[Sequence[FileHandle]], WireHistory]
    allow_private_hosts: bool = False
    files: Sequence[FileHandle] = ()
