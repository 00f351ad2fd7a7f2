"""Who may come in, and what is kept for whom (protocol §2)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hmac import compare_digest

from lmstudio_integrations.emulator.context import Client
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.credentials import TOKEN_FORM, split_token


@dataclass(slots=True)
class _Known:
    client: Client
    passkey: str = field(repr=False)


class Authenticator:
    """Decides on credentials.

    Without tokens, the first socket of a client fixes its passkey; with tokens, only they count.

    Args:
        tokens: API tokens of the form `sk-lm-xxxxxxxx:yyyyyyyyyyyyyyyyyyyy`; none lets guests in.

    Raises:
        LMStudioValueError: If a token has another form. The message does not show it.
    """

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._tokens = tuple(_credentials(token) for token in tokens)
        self._known: dict[str, _Known] = {}

    def refusal(self, identifier: str, passkey: str) -> str | None:
        """Return why a client may not come in, or `None`. Takes as long whichever part of a token is wrong."""
        if self._tokens:
            # Joined as in a token: an identifier of one has no colon, so no other pair reads the same.
            given = f"{identifier}:{passkey}"
            known = [_same(given, f"{known}:{key}") for known, key in self._tokens]
            if any(known):
                return None
            return "An LM Studio API token is required to make requests to this server, and this is none it knows"
        guest = self._known.get(identifier)
        if guest is None or _same(passkey, guest.passkey):
            return None
        return f'Invalid client passkey for client "{identifier}"'

    def enter(self, identifier: str, passkey: str) -> Client:
        """Count a socket in."""
        known = self._known.setdefault(identifier, _Known(Client(identifier), passkey))
        known.client.sockets += 1
        return known.client

    def leave(self, client: Client) -> None:
        """Count a socket out; with its last one, the client and its uploads are forgotten."""
        client.sockets -= 1
        if not client.sockets:
            del self._known[client.identifier]
            client.forget_uploads()


def _same(given: str, expected: str) -> bool:
    """Compare in a time that does not depend on how much of it is right."""
    return compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass"))


def _credentials(token: str) -> tuple[str, str]:
    halves = split_token(token)
    if halves is None:
        raise LMStudioValueError(f"an API token of the server is malformed; it must be {TOKEN_FORM}")
    return halves
