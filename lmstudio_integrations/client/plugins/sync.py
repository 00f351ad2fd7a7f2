# Written by `python -m tools.sync_client` from asynchronous.py.
"""Plugins for threads: `client.plugins` of an `Client`.

`python -m tools.sync_client` writes `sync.py`, which is the same for threads, from `asynchronous.py`.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from typing_extensions import Unpack

from lmstudio_integrations.client.concurrency.flows import run
from lmstudio_integrations.client.plugins.base import (
    BasePluginsNamespace,
    BasePluginTool,
    BaseToolUseSession,
    Plugins,
    ToolCallParameters,
    ToolSessionParameters,
)


class PluginTool(BasePluginTool):
    """A tool of a plugin or an MCP server. `tool(**arguments)` calls it, and returns a JSON value."""

    def __call__(self, /, **arguments: Any) -> Any:
        """Call the tool; see `call`."""
        return self.call(arguments)

    def call(self, arguments: Mapping[str, Any] | None = None, /, **parameters: Unpack[ToolCallParameters]) -> Any:
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
        return run(self._calling(arguments or {}, parameters))


class ToolUseSession(BaseToolUseSession[PluginTool]):
    """Tools of plugins, open inside of `with` or from `start` to `close`. See `BaseToolUseSession`."""

    _tool = PluginTool

    def start(self) -> Self:
        """Start the plugins and list their tools. If one cannot start, the others are closed.

        Raises:
            LMStudioPluginError: If a plugin cannot be started.
            LMStudioValueError: If two tools have the same name.
        """
        run(self._starting())
        return self

    def close(self) -> None:
        """Close the session, so that the plugins do not stay loaded. Calls that still run are aborted."""
        self._close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PluginsNamespace(BasePluginsNamespace):
    """Plugins and MCP servers: `client.plugins`."""

    def tools(self, plugin: Plugins, **parameters: Unpack[ToolSessionParameters]) -> ToolUseSession:
        """Return a session with the tools of a plugin. Nothing is sent before it starts.

        Args:
            plugin: Its identifier; that of an MCP server in `mcp.json` is `mcp/` and its name in kebab case. Or a dict
                of several, each with its `PluginParameters`.
            parameters: See `ToolSessionParameters`.

        Raises:
            LMStudioValueError: If an argument is invalid.
        """
        return ToolUseSession(*self._sessions(plugin, parameters))
