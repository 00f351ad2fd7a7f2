"""Decides which clients may connect, and keeps one record per client (docs/protocol.md#authentication)."""

from collections.abc import Iterable
from hmac import compare_digest

from lmstudio_integrations.emulator.server.context import ConnectedClient
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.credentials import TOKEN_FORM, split_token


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
