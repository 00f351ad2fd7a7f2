"""The fixture that lets the strict judge listen to every emulator of a test."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import pytest

from lmstudio_integrations.emulator.connection import Connection
from tests.strict.listener import Direction, StrictError, StrictListener


@dataclass
class Judge:
    """What the listeners on all sockets of a test have found.

    Attributes:
        findings: One text per frame that a client must not send; a test that fails on purpose clears them.
        frames: How many frames of clients were heard.
    """

    findings: list[str] = field(default_factory=list[str])
    frames: int = 0
    _listeners: WeakKeyDictionary[Connection, StrictListener] = field(default_factory=WeakKeyDictionary)

    def hear(self, connection: Connection, direction: Direction, text: str | bytes) -> None:
        """Take in a frame of one socket."""
        listener = self._listeners.setdefault(connection, StrictListener())
        self.frames += direction == "client"
        try:
            listener.feed(direction, connection.namespace, text)
        except StrictError as error:
            self.findings.append(str(error))


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    """Listen to all emulators in this process; fail the test if a client sends what it must not."""
    judge = Judge()
    receive, write = Connection._receive, Connection._write

    def receive_and_tell(self: Connection, data: bytes) -> None:
        judge.hear(self, "client", data)
        receive(self, data)

    def write_and_tell(self: Connection, frames: list[str]) -> None:
        for frame in frames:
            judge.hear(self, "server", frame)
        write(self, frames)

    monkeypatch.setattr(Connection, "_receive", receive_and_tell)
    monkeypatch.setattr(Connection, "_write", write_and_tell)
    yield judge
    assert not judge.findings, "\n".join(judge.findings)
