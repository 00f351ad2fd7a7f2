"""A plugin whose start, calls and end a test decides."""

import asyncio
from collections.abc import Mapping
from typing import Any

from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.plugins.base import CallReports
from lmstudio_integrations.types.tools import Tool

TOOLS = tuple(
    Tool.from_dict({"type": "function", "function": {"name": name}}) for name in ("echo", "die", "wait", "odd")
)


class FakePlugin:
    """A plugin of one start after the other; `starts` and `stops` count them."""

    def __init__(self, identifier: str = "me/fake") -> None:
        self.identifier = identifier
        self.failure: Exception | None = None
        self.directories: list[str | None] = []
        self.started = asyncio.Event()
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self.running: RunningFake | None = None
        self.stops = 0
        self.cancelled_starts = 0

    @property
    def starts(self) -> int:
        """How often it was started."""
        return len(self.directories)

    def directory(self, chosen: str | None) -> str | None:
        """Return the directory of the client."""
        return chosen

    async def start(self, working_directory: str | None) -> "RunningFake":
        """Start, as soon as it may."""
        self.directories.append(working_directory)
        self.started.set()
        try:
            await self.may_start.wait()
        except asyncio.CancelledError:
            self.cancelled_starts += 1
            raise
        if self.failure is not None:
            raise self.failure
        self.running = RunningFake(self)
        return self.running


class RunningFake:
    """A plugin that runs."""

    tools = TOOLS

    def __init__(self, plugin: FakePlugin) -> None:
        self._plugin = plugin
        self.ended: asyncio.Future[WireError] = asyncio.get_running_loop().create_future()

    async def call(self, name: str, arguments: Mapping[str, Any], reports: CallReports) -> Any:
        """Return the arguments; die, wait, or fail as nobody expects."""
        if name == "die":
            self.ended.set_result(WireError("It has died"))
        if self.ended.done():
            raise self.ended.result()
        if name == "odd":
            raise LookupError("odd")
        if name == "wait":
            reports.status("waiting")
            await asyncio.wait([self.ended])
            raise self.ended.result()
        return dict(arguments)

    async def stop(self) -> None:
        """Stop, as soon as it may."""
        await self._plugin.may_stop.wait()
        self._plugin.stops += 1
