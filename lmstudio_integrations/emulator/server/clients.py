"""The clients: which may connect, one record of each, and its uploaded files (docs/protocol.md#authentication)."""

import hashlib
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from hmac import compare_digest
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

from lmstudio_integrations.emulator.errors import WireError, file_not_found
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.envelope import TOKEN_FORM, split_token


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


@dataclass(slots=True, eq=False)
class ConnectedClient:
    """One client with all its sockets; its uploads are dropped with the last socket (docs/protocol.md#credentials)."""

    identifier: str
    passkey: str = field(repr=False)
    sockets: int = 0
    uploads: dict[str, Upload] = field(default_factory=dict[str, Upload])

    def store(self, upload: Upload) -> str:
        """Store a file and return its identifier, which is new each time."""
        identifier = f"local:{secrets.token_hex(16)}"
        self.uploads[identifier] = upload
        return identifier

    def upload(self, identifier: str) -> Upload:
        """Return a file.

        Raises:
            WireError: If there is none.
        """
        upload = self.uploads.get(with_namespace(identifier))
        if upload is None:
            raise file_not_found(identifier)
        return upload

    def path(self, identifier: str, folder: UploadFolder) -> Path:
        """Return the path of a file, which is written to the folder on first use.

        Raises:
            WireError: If there is no such file, or it cannot be written.
        """
        upload = self.upload(identifier)
        upload.path = upload.path or folder.write(upload)
        return upload.path

    def drop_uploads(self) -> None:
        """Drop all files, as the client has disconnected."""
        for upload in self.uploads.values():
            if upload.path is not None:
                with suppress(OSError):
                    upload.path.unlink()
        self.uploads.clear()


class Authenticator:
    """Checks credentials.

    Without tokens, the first socket of a client fixes its passkey; with tokens, only they count.

    Args:
        tokens: API tokens of the form `sk-lm-xxxxxxxx:yyyyyyyyyyyyyyyyyyyy`; without any, guests may connect.

    Raises:
        LMStudioValueError: If a token has another form. The message does not contain it.
    """

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._tokens = tuple(_credentials(token) for token in tokens)
        self._clients: dict[str, ConnectedClient] = {}

    def why_rejected(self, identifier: str, passkey: str) -> str | None:
        """Return why credentials are rejected, or `None`. The time does not depend on which part is wrong."""
        if self._tokens:
            # Joined as in a token: its identifier has no colon, so no other pair gives the same text.
            pair = f"{identifier}:{passkey}"
            matches = [_is_equal(pair, f"{known_identifier}:{key}") for known_identifier, key in self._tokens]
            if any(matches):
                return None
            return "An LM Studio API token that this server accepts is required"
        guest = self._clients.get(identifier)
        if guest is None or _is_equal(passkey, guest.passkey):
            return None
        return f'Invalid client passkey for client "{identifier}"'

    def connect(self, identifier: str, passkey: str) -> ConnectedClient:
        """Return the client of a new socket, which counts until `disconnect`."""
        client = self._clients.setdefault(identifier, ConnectedClient(identifier, passkey))
        client.sockets += 1
        return client

    def disconnect(self, client: ConnectedClient) -> None:
        """Count a socket no longer; with the last one, the client and its uploads are dropped."""
        client.sockets -= 1
        if not client.sockets:
            del self._clients[client.identifier]
            client.drop_uploads()


def _is_equal(text: str, expected: str) -> bool:
    """Compare in constant time."""
    return compare_digest(text.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass"))


def _credentials(token: str) -> tuple[str, str]:
    halves = split_token(token)
    if halves is None:
        raise LMStudioValueError(f"an API token of the server is malformed; it must be {TOKEN_FORM}")
    return halves
