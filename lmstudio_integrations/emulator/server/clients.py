"""The clients: which may connect, one record of each, and its uploaded files (docs/protocol.md#authentication)."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from hmac import compare_digest

from lmstudio_integrations.emulator.errors import file_not_found
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.envelope import TOKEN_FORM, split_token

_UNAUTHENTICATED = (
    "An LM Studio API token is required to make requests to this server, but none was provided using the Authorization "
    "header using the 'Bearer' scheme (i.e., 'Authorization: Bearer $LM_API_TOKEN'). Learn more at: "
    "https://lmstudio.ai/docs/developer/core/authentication."
)
_MALFORMED = "Malformed LM Studio API token provided: {}… Ensure you are using a valid token."
"""What LM Studio responds to an HTTP request; of the second, the first ten characters are shown."""


@dataclass(eq=False)
class Upload:
    """A temporary file of a client."""

    name: str
    data: bytes
    file_type: str

    @cached_property
    def sha256(self) -> str:
        """The digest of its content."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(slots=True, eq=False)
class ConnectedClient:
    """One client with all its sockets; its uploads are dropped with the last socket (docs/protocol.md#credentials)."""

    identifier: str
    passkey: str = field(repr=False)
    sockets: int = 0
    uploads: dict[str, Upload] = field(default_factory=dict[str, Upload])

    def upload(self, identifier: str) -> Upload:
        """Return a file.

        Raises:
            WireError: If there is none.
        """
        # The namespace of an identifier is `local` by default.
        upload = self.uploads.get(identifier if ":" in identifier else f"local:{identifier}")
        if upload is None:
            raise file_not_found(identifier)
        return upload


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
        self.requires_token: bool = bool(self._tokens)
        """Whether only clients with a token may connect."""
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

    def why_token_is_rejected(self, authorization: str) -> str | None:
        """Return why the `Authorization` header of an HTTP request is rejected, or `None`; guests need none."""
        if not self._tokens:
            return None
        token = authorization.removeprefix("Bearer ")
        if not token:
            return _UNAUTHENTICATED
        credentials = split_token(token)
        return self.why_rejected(*credentials) if credentials else _MALFORMED.format(token[:10])

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


def _is_equal(text: str, expected: str) -> bool:
    """Compare in constant time."""
    return compare_digest(text.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass"))


def _credentials(token: str) -> tuple[str, str]:
    halves = split_token(token)
    if halves is None:
        raise LMStudioValueError(f"an API token of the server is malformed; it must be {TOKEN_FORM}")
    return halves
