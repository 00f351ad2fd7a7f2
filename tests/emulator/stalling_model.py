"""A server with a scripted model that stalls on request."""

from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.emulator.models.registry_models import WAITING

MODEL = "chat"
LONG = ModelEntry(key=MODEL, rules=({"then": [{"text": " ".join(["word"] * 40_000)}]},), preload=True)


def stalling() -> Emulator:
    """Return a server with one model, loaded."""
    return Emulator([ModelEntry(key=MODEL, rules=(WAITING,), preload=True)])


def credentials(client: object = "guest:me", passkey: object = "secret") -> dict[str, object]:
    return {"authVersion": 1, "clientIdentifier": client, "clientPasskey": passkey}
