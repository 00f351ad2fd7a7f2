"""A server with models that a test loads, its clock, and a socket to it; files with other models have their own."""

from collections.abc import Iterator

import pytest

from lmstudio_integrations.emulator import Emulator, ManualClock
from tests.emulator.bare_client import Wire, wire
from tests.emulator.models.registry_models import ENTRIES


@pytest.fixture
def clock() -> ManualClock:
    """Time that the test moves."""
    return ManualClock()


@pytest.fixture
def server(clock: ManualClock) -> Iterator[Emulator]:
    """A server with models of both kinds, none loaded."""
    with Emulator(ENTRIES, clock=clock) as emulator:
        yield emulator


@pytest.fixture
def me(server: Emulator) -> Iterator[Wire]:
    """A socket for language models."""
    with wire(server) as opened:
        yield opened
