"""The fixtures that let the strict judge listen to every emulator of this process.

A folder of tests turns them on by importing both names in its `conftest.py`; they then act by themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import pytest

from lmstudio_integrations.emulator.connection_handler import ConnectionHandler
from tests.strict.listener import Direction, StrictError, StrictListener


@dataclass
class Judge:
    """What the listeners on all sockets have found.

    Attributes:
        findings: One text per frame that a client must not send; a test that fails on purpose clears them.
        frames: How many frames of clients were heard.
    """

    findings: list[str] = field(default_factory=list[str])
    frames: int = 0
    _listeners: WeakKeyDictionary[ConnectionHandler, StrictListener] = field(default_factory=WeakKeyDictionary)

    def hear(self, connection: ConnectionHandler, direction: Direction, text: str | bytes) -> None:
        """Take in a frame of one socket."""
        listener = self._listeners.setdefault(connection, StrictListener())
        self.frames += direction == "client"
        try:
            listener.feed(direction, connection.namespace, text)
        except StrictError as error:
            self.findings.append(str(error))


@pytest.fixture(scope="session", autouse=True)
def overhearing() -> Iterator[Judge]:
    """Listen to all emulators, also to those that serve several tests."""
    judge = Judge()
    receive, write = ConnectionHandler._receive, ConnectionHandler._write

    def receive_and_tell(self: ConnectionHandler, data: bytes) -> None:
        judge.hear(self, "client", data)
        receive(self, data)

    def write_and_tell(self: ConnectionHandler, frames: list[str]) -> None:
        for frame in frames:
            judge.hear(self, "server", frame)
        write(self, frames)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConnectionHandler, "_receive", receive_and_tell)
        patch.setattr(ConnectionHandler, "_write", write_and_tell)
        yield judge


@pytest.fixture(autouse=True)
def strict(overhearing: Judge) -> Iterator[Judge]:
    """Fail the test if a client sends what it must not."""
    overhearing.findings.clear()
    overhearing.frames = 0
    yield overhearing
    assert not overhearing.findings, "\n".join(overhearing.findings)
