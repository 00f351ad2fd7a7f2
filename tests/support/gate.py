"""A gate that holds up generations of scripted models, and tools of plugins, until a test opens it."""

import asyncio
import contextlib
import threading
from typing import Any

from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine

AT_THE_GATE: dict[str, Any] = {"wait": 1000}
"""The step of a rule that is held up; shorter waits take their time."""


class Gate:
    """Is closed at first. May be opened from any thread, while the emulator runs."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        """Set when the first one is held up."""
        self._is_open = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def open(self) -> None:
        """Let all pass, now and later."""
        self._is_open = True
        for loop, event in self._waiting:
            with contextlib.suppress(RuntimeError):  # its server was stopped
                loop.call_soon_threadsafe(event.set)

    def engines(self) -> dict[str, ScriptedEngine]:
        """Return the engines of an emulator with this gate."""
        return {"scripted": ScriptedEngine(self._sleep)}

    async def _sleep(self, seconds: float) -> None:
        if seconds < AT_THE_GATE["wait"]:
            await asyncio.sleep(seconds)
        else:
            await self.wait()

    async def wait(self) -> None:
        """Wait until the gate is open."""
        event = asyncio.Event()
        self._waiting.append((asyncio.get_running_loop(), event))
        self.reached.set()
        if not self._is_open:
            await event.wait()
