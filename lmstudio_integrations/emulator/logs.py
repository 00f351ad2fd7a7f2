"""The server's log as clients can stream it (protocol §4.8)."""

from collections.abc import Callable, Mapping
from typing import Any

from lmstudio_integrations.emulator.clock import Clock

Listener = Callable[[dict[str, Any]], None]


class Logs:
    """Hands each entry to all who listen; keeps none.

    Args:
        clock: The time, for the stamps.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._listeners: list[Listener] = []

    @property
    def requested(self) -> bool:
        """Whether anybody listens; without, an entry need not be made."""
        return bool(self._listeners)

    def add(self, listener: Listener) -> None:
        """Let somebody listen."""
        self._listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        """Let somebody listen no more."""
        self._listeners.remove(listener)

    def write(self, data: Mapping[str, Any]) -> None:
        """Hand an entry to all who listen."""
        entry = {"timestamp": self._clock.unix_ms(), "data": dict(data)}
        for listener in list(self._listeners):
            listener(entry)
