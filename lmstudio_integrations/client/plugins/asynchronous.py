"""Plugins for coroutines: `client.plugins` of an `AsyncClient`.

`python -m tools.sync_client` writes `sync.py`, which is the same for threads, from `asynchronous.py`.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from typing_extensions import Unpack

from lmstudio_integrations.client.concurrency.flows import arun
from lmstudio_integrations.client.plugins.base import (
    BasePluginsNamespace,
    BasePluginTool,
    BaseToolUseSession,
    Plugins,
    ToolCallParameters,
    ToolSessionParameters,
)


class AsyncPluginTool(BasePluginTool):
    """A tool of a plugin or an MCP server. `await tool(**arguments)` calls it, and returns a JSON value."""

    async def __call__(self, /, **arguments: Any) -> Any:
        """Call the tool; see `call`."""
        return await self.call(arguments)

    async def call(
        self, arguments: Mapping[str, Any] | None = None, /, **parameters: Unpack[ToolCallParameters]
    ) -> Any:
        """Call the tool and return its result, a JSON value; `ToolContent.of` reads that of an MCP server.

        Args:
            arguments: The arguments by name.
            parameters: See `ToolCallParameters`.

        Raises:
            LMStudioValueError: If the arguments do not fit.
            LMStudioPluginToolError: If the tool fails.
            LMStudioToolConnectionLostError: If the connection is lost meanwhile; the tool is not called again.
            LMStudioTimeoutError: If it takes longer than `total_timeout`; the call is aborted.
            LMStudioRuntimeError: If the session was closed.
        """
        return await arun(self._calling(arguments or {}, parameters))


class AsyncToolUseSession(BaseToolUseSession[AsyncPluginTool]):
    """Tools of plugins, open inside of `async with` or from `start` to `aclose`. See `BaseToolUseSession`."""

    _tool = AsyncPluginTool

    async def start(self) -> Self:
        """Start the plugins and list their tools. If one cannot start, the others are closed.

        Raises:
            LMStudioPluginError: If a plugin cannot be started.
            LMStudioValueError: If two tools have the same name.
        """
        await arun(self._starting())
        return self

    async def aclose(self) -> None:
        """Close the session, so that the plugins do not stay loaded. Calls that still run are aborted."""
        self._close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class AsyncPluginsNamespace(BasePluginsNamespace):
    """Plugins and MCP servers: `client.plugins`."""

    def tools(self, plugin: Plugins, **parameters: Unpack[ToolSessionParameters]) -> AsyncToolUseSession:
        """Return a session with the tools of a plugin. Nothing is sent before it starts.

        Args:
            plugin: Its identifier; that of an MCP server in `mcp.json` is `mcp/` and its name in kebab case. Or a dict
                of several, each with its `PluginParameters`.
            parameters: See `ToolSessionParameters`.

        Raises:
            LMStudioValueError: If an argument is invalid.
        """
        return AsyncToolUseSession(*self._sessions(plugin, parameters))
