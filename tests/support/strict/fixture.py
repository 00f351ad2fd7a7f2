"""Fixtures that check the frames of every emulator in this process, and of all its clients.

A folder of tests turns them on by importing both names in its `conftest.py`; they then act by themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import pytest

from lmstudio_integrations.emulator.server.connection_handler import ConnectionHandler
from tests.support.strict.listener import Direction, StrictError, StrictListener


@dataclass
class Findings:
    """What the listeners on all sockets have found.

    Attributes:
        findings: One text per frame that its side must not send; a test that fails on purpose clears them.
        frames: The number of frames of clients.
    """

    findings: list[str] = field(default_factory=list[str])
    frames: int = 0
    _listeners: WeakKeyDictionary[ConnectionHandler, StrictListener] = field(default_factory=WeakKeyDictionary)

    def receive_frame(self, connection: ConnectionHandler, direction: Direction, text: str | bytes) -> None:
        """Check a frame of one socket."""
        listener = self._listeners.setdefault(connection, StrictListener())
        self.frames += direction == "client"
        try:
            listener.feed(direction, connection.namespace, text)
        except StrictError as error:
            self.findings.append(str(error))


@pytest.fixture(scope="session", autouse=True)
def strict_findings() -> Iterator[Findings]:
    """Listen to all emulators, also to those that serve several tests."""
    found = Findings()
    receive, write = ConnectionHandler._receive, ConnectionHandler._write

    def receive_and_check(self: ConnectionHandler, data: bytes) -> None:
        # What the server has sent before it receives this stands before it, though it may not be written yet.
        self._flush()
        found.receive_frame(self, "client", data)
        receive(self, data)

    def write_and_check(self: ConnectionHandler, frames: list[str]) -> None:
        for frame in frames:
            found.receive_frame(self, "server", frame)
        write(self, frames)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConnectionHandler, "_receive", receive_and_check)
        patch.setattr(ConnectionHandler, "_write", write_and_check)
        yield found


@pytest.fixture(autouse=True)
def strict(strict_findings: Findings) -> Iterator[Findings]:
    """Fail the test if either side sends what it must not."""
    strict_findings.findings.clear()
    strict_findings.frames = 0
    yield strict_findings
    if strict_findings.findings:
        pytest.fail("\n".join(dict.fromkeys(strict_findings.findings)), pytrace=False)
