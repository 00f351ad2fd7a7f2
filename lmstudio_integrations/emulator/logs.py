"""The server's log, which clients can stream (docs/protocol.md#diagnostics-endpoints)."""

from collections.abc import Callable, Mapping
from typing import Any

from lmstudio_integrations.emulator.clock import Clock

Listener = Callable[[dict[str, Any]], None]


class Logs:
    """Sends each entry to all listeners, and stores none.

    Args:
        clock: The time, for timestamps.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._listeners: list[Listener] = []

    @property
    def has_listeners(self) -> bool:
        """Whether there are listeners; without any, entries need not be built."""
        return bool(self._listeners)

    def add(self, listener: Listener) -> None:
        """Add a listener."""
        self._listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        """Remove a listener."""
        self._listeners.remove(listener)

    def write(self, data: Mapping[str, Any]) -> None:
        """Send an entry to all listeners."""
        entry = {"timestamp": self._clock.unix_ms(), "data": dict(data)}
        for listener in list(self._listeners):
            listener(entry)
