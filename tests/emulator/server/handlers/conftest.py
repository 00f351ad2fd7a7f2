"""The server that the tests of the handlers share."""

from collections.abc import Iterator

import pytest

from lmstudio_integrations.emulator import Catalog, Emulator
from tests.emulator.bare_client import Wire, wire
from tests.emulator.server.handlers.models import ABSENT, BLIND, CHAT, PRESET, VECTORS


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    """A server with three loaded models and one that is to be downloaded."""
    catalog = Catalog(models=(CHAT, BLIND, VECTORS, ABSENT), presets=(PRESET,))
    with Emulator(catalog=catalog, load=["chat", "blind", "vectors"]) as emulator:
        yield emulator


@pytest.fixture
def files(server: Emulator) -> Iterator[Wire]:
    """A socket of the same client for files."""
    with wire(server, "files") as opened:
        yield opened
