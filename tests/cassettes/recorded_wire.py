"""A bare client that is recorded like the client of the package."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lmstudio_integrations.cassettes import Recording
from tests.emulator.bare_client import Wire, wire


class _RecordedSocket:
    def __init__(self, recording: Recording, namespace: str, socket: Any) -> None:
        self._socket = socket
        self.conversation = recording.conversation(namespace)

    def send(self, frame: str | bytes) -> None:
        self.conversation.add("client", frame)
        self._socket.send(frame)

    def recv(self, timeout: float) -> Any:
        frame = self._socket.recv(timeout)
        self.conversation.add("server", frame)
        return frame


@contextmanager
def recorded_wire(server: Any, namespace: str = "llm") -> Iterator[Wire]:
    """Open an authenticated socket; if the server is recorded, so is what is said there."""
    with wire(server, namespace) as opened:
        if not isinstance(server, Recording):
            yield opened
            return
        socket: Any = _RecordedSocket(server, namespace, opened.socket)
        yield Wire(socket)
    socket.conversation.end()
