"""The server that tests of connections share."""

from collections.abc import Iterator

import pytest

from lmstudio_integrations.emulator import Emulator
from tests.emulator.stalling_model import stalling


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with one scripted model, loaded, that stalls on request."""
    with stalling() as emulator:
        yield emulator
