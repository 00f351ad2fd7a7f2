"""An emulator that releases clients, as the reference server does: afterwards their identity is rejected for ever."""

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.server.clients import Authenticator, ConnectedClient

RELEASED = "Client is already released!"


class ReleasingAuthenticator(Authenticator):
    """Releases a client with its last socket. See docs/protocol.md#authentication-rules."""

    def __init__(self) -> None:
        super().__init__()
        self.released: set[str] = set()

    def why_rejected(self, identifier: str, passkey: str) -> str | None:
        """Return why credentials are rejected, or `None`."""
        return RELEASED if identifier in self.released else super().why_rejected(identifier, passkey)

    def disconnect(self, client: ConnectedClient) -> None:
        """Count a socket no longer; with the last one, the client is released."""
        super().disconnect(client)
        if not client.sockets:
            self.released.add(client.identifier)


def releasing(emulator: Emulator) -> ReleasingAuthenticator:
    """Let an emulator that has not started release its clients; return what decides about them."""
    authenticator = ReleasingAuthenticator()
    emulator._new_server.keywords["authenticator"] = authenticator
    return authenticator
