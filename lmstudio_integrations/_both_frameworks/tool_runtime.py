"""What a toolkit has open: one session with its plugins, which its tools share, in threads and in coroutines.

A toolkit is configuration, so none of this is copied or pickled. The session is closed with the toolkit, or once
neither the toolkit nor any of its tools is in use.
"""

from collections.abc import Mapping
from threading import Lock
from typing import Any, NamedTuple

from lmstudio_integrations._both_frameworks.runtime import BaseRuntime, client_arguments
from lmstudio_integrations._both_frameworks.specs import ServerSpec
from lmstudio_integrations.client.api.plugins import AsyncPluginTool, PluginTool
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.client.plugins.sessions import RemoteTool
from lmstudio_integrations.client.transport.flows import Flow, arun, run
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.client.transport.waiters import LoopWaiter
from lmstudio_integrations.errors import LMStudioError


class SessionSpec(NamedTuple):
    """Which plugins of which server.

    Attributes:
        server: The server.
        plugin: One plugin, or several.
        parameters: How they run.
    """

    server: ServerSpec
    plugin: Any
    parameters: Mapping[str, Any]


class NativeTool(NamedTuple):
    """A tool as the two clients have it: for threads, and for coroutines."""

    sync: PluginTool
    asynchronous: AsyncPluginTool


class ToolSession:
    """A session with plugins. It is opened again after a loss.

    Args:
        spec: The plugins.
        timeouts: The timeouts of the session, and of calls that have none of their own.

    Raises:
        LMStudioValueError: If a setting is invalid.
    """

    def __init__(self, spec: SessionSpec, timeouts: Mapping[str, Any]) -> None:
        native = Client(**client_arguments(spec.server), **timeouts).plugins.tools(spec.plugin, **spec.parameters)
        self.spec = spec
        self.is_closed = False
        self._has_tools = False
        self._sessions = native.sessions
        self._caller = native.caller
        self._async_caller = native.caller.with_waiters(LoopWaiter)

    def tools(self) -> list[NativeTool]:
        """Return the tools, once the plugins have started.

        Raises:
            LMStudioPluginError: If a plugin cannot be started.
            LMStudioValueError: If two tools have the same name.
        """
        return [self._native(each) for each in run(self._list(Operation(self._caller, {"timeout": None})))]

    async def atools(self) -> list[NativeTool]:
        """Return the tools, once the plugins have started; see `tools`."""
        operation = Operation(self._async_caller, {"timeout": None})
        return [self._native(each) for each in await arun(self._list(operation))]

    def _list(self, operation: Operation) -> Flow[list[RemoteTool]]:
        try:
            tools = yield from self._sessions.list_tools(operation)
        except LMStudioError:
            if not self._has_tools:  # else they are in use, and the next call opens again what was lost
                self._sessions.close()
            raise
        self._has_tools = True
        return tools

    def _native(self, tool: RemoteTool) -> NativeTool:
        return NativeTool(PluginTool.of(tool, self._caller), AsyncPluginTool.of(tool, self._async_caller))

    def close(self) -> None:
        """Close it. Calls that still run are aborted."""
        self.is_closed = True
        self._sessions.close()


class ToolRuntime(BaseRuntime):
    """The session of one toolkit."""

    def __init__(self, dropped_secrets: frozenset[str] = frozenset()) -> None:
        super().__init__(dropped_secrets)
        self._lock = Lock()
        self._session: ToolSession | None = None

    def session(self, spec: SessionSpec, timeouts: Mapping[str, Any]) -> ToolSession:
        """Return the session with plugins; the one with others is closed."""
        with self._lock:
            if self._session is None or self._session.spec != spec:
                self._close_session()
                self._session = ToolSession(spec, timeouts)
            return self._session

    def close(self) -> None:
        """Close the session. The toolkit opens another one when it is asked for its tools."""
        with self._lock:
            self._close_session()

    def _close_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
