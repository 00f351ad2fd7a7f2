"""A scripted model that stalls on request."""

import urllib.error
import urllib.request

from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.emulator.bare_client import TIMEOUT

MODEL = "chat"


WAITING = {"when": {"last": "^Wait"}, "then": [{"text": "One"}, {"fault": "stall"}]}


def get(server: Emulator, path: str, **headers: str) -> tuple[int, str, str]:
    """Return status, content type and body of a plain GET."""
    request = urllib.request.Request(f"http://{server.address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return response.status, response.headers["Content-Type"], response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def credentials(client: object = "guest:me", passkey: object = "secret") -> dict[str, object]:
    return {"authVersion": 1, "clientIdentifier": client, "clientPasskey": passkey}


LONG = ModelEntry(key=MODEL, rules=({"then": [{"text": " ".join(["word"] * 40_000)}]},), preload=True)
