"""An emulator for the official SDK."""

from collections.abc import Iterator

import lmstudio as lms
import pytest
from sdk_servers import ABSENT, BLIND, CHAT, EMBEDDING, guarded_server, nobody_complains, plain_server

from lmstudio_integrations.emulator import Catalog, Emulator, Preset

__all__ = ["guarded_server", "nobody_complains", "plain_server"]

BRIEF = Preset(identifier="brief", fields={"llm.prediction.maxPredictedTokens": {"checked": True, "value": 2}})


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with a model of each kind, none loaded."""
    with Emulator(catalog=Catalog(models=(CHAT, BLIND, EMBEDDING, ABSENT), presets=(BRIEF,))) as emulator:
        yield emulator


@pytest.fixture
def client(server: Emulator) -> Iterator[lms.Client]:
    """The official client."""
    with lms.Client(server.address) as client:
        yield client
