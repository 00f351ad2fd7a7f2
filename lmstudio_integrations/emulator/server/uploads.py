"""Uploaded files: in memory, and in a private folder if a client requests a path."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

from lmstudio_integrations.emulator.errors import WireError


@dataclass(eq=False)
class Upload:
    """A temporary file of a client."""

    name: str
    data: bytes
    file_type: str
    path: Path | None = None
    """Where it was written, if a client has requested its path."""

    @cached_property
    def sha256(self) -> str:
        """The digest of its content."""
        return hashlib.sha256(self.data).hexdigest()


_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")


class UploadFolder:
    """A private temporary folder for uploads; created on first use, removed with the server."""

    def __init__(self) -> None:
        self._folder: TemporaryDirectory[str] | None = None

    def write(self, upload: Upload) -> Path:
        """Write a file and return its absolute path.

        Raises:
            WireError: If that fails.
        """
        suffix = PurePath(upload.name).suffix
        name = secrets.token_hex(16) + (suffix if _SUFFIX.fullmatch(suffix) else "")
        try:
            if self._folder is None:
                self._folder = TemporaryDirectory(prefix="lmstudio-integrations-", ignore_cleanup_errors=True)
            path = Path(self._folder.name).resolve() / name
            path.write_bytes(upload.data)
        except OSError as error:
            raise WireError(f'The file "{upload.name}" cannot be written', cause=error.strerror) from error
        return path

    def remove(self) -> None:
        """Remove the folder with its content."""
        if self._folder is not None:
            self._folder.cleanup()


def with_namespace(identifier: str) -> str:
    """Return an identifier with its namespace, which is `local` by default."""
    return identifier if ":" in identifier else f"local:{identifier}"
