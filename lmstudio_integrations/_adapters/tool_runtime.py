"""What a toolkit has open: one session with its plugins, which its tools share, in threads and in coroutines.

A toolkit is configuration, so none of this is copied or pickled. The session is closed with the toolkit, or once
neither the toolkit nor any of its tools is in use.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from lmstudio_integrations._adapters.runtime import BaseRuntime, client_arguments
from lmstudio_integrations._adapters.specs import ServerSpec
from lmstudio_integrations.client.api.sync import Client, ToolUseSession


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


class ToolRuntime(BaseRuntime):
    """The session of one toolkit."""

    def __init__(self, dropped_secrets: frozenset[str] = frozenset()) -> None:
        super().__init__(dropped_secrets)
        self._current: tuple[SessionSpec, ToolUseSession] | None = None

    def session(self, spec: SessionSpec, timeouts: Mapping[str, Any]) -> ToolUseSession:
        """Return the session with plugins, which may not be open yet; the one with others is closed.

        Args:
            spec: The plugins.
            timeouts: The timeouts of a session that is not in use yet.

        Raises:
            LMStudioValueError: If a setting is invalid.
        """
        current = self._current
        if current is not None and current[0] == spec and current[1].sessions.is_in_use:
            return current[1]
        made = Client(**client_arguments(spec.server), **timeouts).plugins.tools(spec.plugin, **spec.parameters)
        if current is not None:
            current[1].close()
        self._current = spec, made
        return made

    def close(self) -> None:
        """Close the session. The toolkit opens another one when it is asked for its tools."""
        current, self._current = self._current, None
        if current is not None:
            current[1].close()
