"""What a plugin with tools is to the server. `mcp_server.py` and `functions.py` implement it.

A plugin starts with its first session, is shared by all its sessions, and stops with the last of them.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.types.tools import Tool


@dataclass(frozen=True, slots=True)
class CallReports:
    """Where a running call reports to.

    Attributes:
        status: Called with what it is doing.
        warn: Called with a problem that it has solved by itself.
    """

    status: Callable[[str], None]
    warn: Callable[[str], None]


class RunningPlugin(Protocol):
    """A plugin that runs. Everything happens on the server's event loop.

    Attributes:
        tools: Its tools.
        ended: Done when the plugin has ended, with the error for its sessions. Its calls have failed, or do so now.
    """

    tools: tuple[Tool, ...]
    ended: asyncio.Future[WireError]

    async def call(self, name: str, arguments: Mapping[str, Any], reports: CallReports) -> Any:
        """Call a tool and return its result, as JSON values. Cancelling the task aborts the call.

        Args:
            name: The name of one of the tools.
            arguments: Its arguments, as the client sent them.
            reports: Where the call reports to, while it runs.

        Raises:
            WireError: If the tool fails, its arguments do not fit, or the plugin has ended.
        """
        ...

    async def stop(self) -> None:
        """Stop the plugin and wait until nothing of it is left. Calls that still run fail."""
        ...


class Plugin(Protocol):
    """A plugin that may be started."""

    identifier: str

    def directory(self, chosen: str | None) -> str | None:
        """Return the directory in which the plugin runs; sessions with the same one share it.

        Args:
            chosen: The directory that the client has chosen, if any.
        """
        ...

    async def start(self, working_directory: str | None) -> RunningPlugin:
        """Start the plugin in a directory, and list its tools.

        Raises:
            WireError: If it cannot be started, or does not answer.
        """
        ...
