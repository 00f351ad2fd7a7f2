"""Counts how often an event loop has a turn for other work."""

import asyncio
from collections.abc import Awaitable
from typing import Any


async def ticks_during(work: Awaitable[Any]) -> int:
    """Return how many times the event loop ran another task meanwhile."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticker = asyncio.create_task(tick())
    try:
        await work
    finally:
        ticker.cancel()
    return ticks
