"""The plugins of the server: which exist, and which run.

Used by the handlers; built on the plugins. Everything here runs on the server's event loop.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lmstudio_integrations._support.installation import install_command
from lmstudio_integrations.emulator.errors import WireError, plugin_not_found
from lmstudio_integrations.emulator.plugins.base import Plugin, RunningPlugin
from lmstudio_integrations.emulator.plugins.entry import PluginEntry
from lmstudio_integrations.emulator.plugins.functions import FunctionPlugin
from lmstudio_integrations.emulator.plugins.generator import GeneratorPlugin

logger: logging.Logger = logging.getLogger(__name__)

AnyPlugin = Plugin | GeneratorPlugin
"""A plugin with tools, or one that writes messages."""


@dataclass(slots=True, eq=False)
class SharedPlugin:
    """A plugin that starts or runs, for all its sessions with one working directory."""

    identifier: str
    working_directory: str | None
    starting: "asyncio.Task[RunningPlugin]"
    sessions: int = 0
    stopping: "asyncio.Task[None] | None" = None
    """The task that stops it, since its last session has ended."""

    @property
    def running(self) -> RunningPlugin:
        """The plugin, once it runs."""
        return self.starting.result()

    @property
    def has_ended(self) -> bool:
        """Whether it has ended by itself; the next session starts it anew."""
        started = self.starting.done() and not self.starting.cancelled() and self.starting.exception() is None
        return started and self.running.ended.done()


class PluginRegistry:
    """All plugins of one server.

    Args:
        plugins: The plugins that exist.
    """

    def __init__(self, plugins: Iterable[AnyPlugin] = ()) -> None:
        self._plugins = {plugin.identifier: plugin for plugin in plugins}
        self._running: list[SharedPlugin] = []

    @property
    def running(self) -> tuple[str, ...]:
        """The identifiers of the plugins that run, once for each working directory."""
        return tuple(shared.identifier for shared in tuple(self._running))

    def generator(self, identifier: str) -> GeneratorPlugin:
        """Return a plugin that writes messages.

        Raises:
            WireError: If there is none, or the plugin has tools instead.
        """
        plugin = self._find(identifier)
        if not isinstance(plugin, GeneratorPlugin):
            raise WireError(f'The plugin "{identifier}" is not a generator')
        return plugin

    @asynccontextmanager
    async def session(self, identifier: str, working_directory: str | None) -> AsyncGenerator[SharedPlugin]:
        """Use a plugin with tools: it starts with its first session, and stops after the last one.

        Args:
            identifier: The identifier of the plugin.
            working_directory: The directory that the client has chosen, if any.

        Raises:
            WireError: If there is none, it has no tools, or cannot be started.
        """
        plugin = self._find(identifier)
        if isinstance(plugin, GeneratorPlugin):
            raise WireError(f'The plugin "{identifier}" has no tools: it is a generator')
        shared = await self._share(plugin, plugin.directory(working_directory))
        shared.sessions += 1
        try:
            await asyncio.shield(shared.starting)  # several sessions may wait for it
            yield shared
        finally:
            # No await: a session that joined meanwhile would get a plugin that stops.
            shared.sessions -= 1
            if not shared.sessions:
                shared.stopping = asyncio.create_task(self._stop(shared))

    async def close(self) -> None:
        """Wait until all plugins have stopped. Their sessions have ended before."""
        stopping = [shared.stopping for shared in self._running if shared.stopping is not None]
        if stopping:
            await asyncio.wait(stopping)

    def _find(self, identifier: str) -> AnyPlugin:
        plugin = self._plugins.get(identifier)
        if plugin is None:
            raise plugin_not_found(identifier, list(self._plugins))
        return plugin

    async def _share(self, plugin: Plugin, working_directory: str | None) -> SharedPlugin:
        """Return the running plugin, or start it; one that stops is waited for, so that it never runs twice."""
        while shared := self._find_running(plugin.identifier, working_directory):
            if shared.stopping is None:
                return shared
            await asyncio.wait([shared.stopping])
        starting = asyncio.create_task(plugin.start(working_directory))
        shared = SharedPlugin(plugin.identifier, working_directory, starting)
        self._running.append(shared)
        return shared

    def _find_running(self, identifier: str, working_directory: str | None) -> SharedPlugin | None:
        place = (identifier, working_directory)
        return next(
            (
                shared
                for shared in self._running
                if (shared.identifier, shared.working_directory) == place and not shared.has_ended
            ),
            None,
        )

    async def _stop(self, shared: SharedPlugin) -> None:
        shared.starting.cancel()  # without effect if it runs
        await asyncio.wait([shared.starting])
        try:
            if not shared.starting.cancelled() and shared.starting.exception() is None:
                await shared.running.stop()
        except Exception:
            logger.exception("the plugin %r did not stop as it should", shared.identifier)
        finally:
            self._running.remove(shared)


def create_plugin(entry: PluginEntry) -> AnyPlugin:
    """Return the plugin of an entry of the catalog.

    Raises:
        ModuleNotFoundError: If it is an MCP server, and the extra `mcp`, which the message names, is not installed.
    """
    if entry.generator:
        return GeneratorPlugin(entry.identifier, entry.rules)
    if entry.functions:
        return FunctionPlugin(entry.identifier, entry.functions)
    if find_spec("mcp") is None:
        needed = f"the plugin {entry.identifier!r} is an MCP server, which needs mcp"
        raise ModuleNotFoundError(f"{needed}; run: {install_command('mcp')}", name="mcp")
    from lmstudio_integrations.emulator.plugins.mcp_server import McpServer  # noqa: PLC0415 - needs the extra

    directory = entry.working_directory
    return McpServer(
        entry.identifier,
        command=entry.command,
        url=entry.url,
        env=entry.env,
        headers=entry.headers,
        working_directory=None if directory is None else str(Path(directory).expanduser()),
    )
