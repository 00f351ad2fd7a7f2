"""Virtual time for tests of timeouts: the client and its servers run in one simulated loop."""

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator
from tests.simulation.world import simulation

Play = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture
def play() -> Iterator[Play]:
    """Return what runs a coroutine in virtual time."""
    with simulation() as loop:
        yield loop.run_until_complete


@contextlib.asynccontextmanager
async def serving(emulator: Emulator) -> AsyncIterator[str]:
    """Run a server in the loop of the coroutine; return its address."""
    async with emulator._serving() as running:
        for entry in emulator.catalog.models:
            if entry.preload:
                await running.load(entry.key)
        yield f"127.0.0.1:{running.server.port}"
