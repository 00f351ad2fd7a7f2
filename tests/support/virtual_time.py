"""Tests in which an hour takes no time: the client and its servers share the loop of the simulation."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, cast

from lmstudio_integrations.emulator import Emulator
from tests.simulation.loop import SimulatedLoop
from tests.simulation.world import simulation


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a loop whose time jumps to the next timer. Its client must be async."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with simulation() as loop:
            try:
                loop.run_until_complete(test(*args, **kwargs))
            finally:
                loop.run_until_complete(end_tasks())

    return run


async def end_tasks() -> None:
    """Let what closes sockets end, then cancel what waits for peers that are silent for ever."""
    await asyncio.sleep(60)
    remaining = asyncio.all_tasks() - {asyncio.current_task()}
    for task in remaining:
        task.cancel()
    await asyncio.gather(*remaining, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


def freeze(address: str, seconds: float) -> None:
    """Let the server at an address read and write nothing for a time; then it goes on with all its connections."""
    loop = cast("SimulatedLoop", asyncio.get_running_loop())
    loop.network.freeze(int(address.rpartition(":")[2]), loop.time() + seconds)


@asynccontextmanager
async def serving(emulator: Emulator) -> AsyncIterator[str]:
    """Run an emulator in the loop of the test; yield its address."""
    async with emulator._serving() as running:
        for entry in emulator.catalog.models:
            if entry.preload:
                await running.load(entry.key)
        yield f"127.0.0.1:{running.server.port}"
