"""A server that plays its side of a transcript and compares the client's frames with the other side."""

import http
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from tests.protocol.transcripts import Ids, Line
from tests.support.strict.listener import StrictListener

WAIT = 600.0


class Reader:
    """Sends the server's frames of a transcript and records where the client's frames differ."""

    def __init__(self, lines: list[Line]) -> None:
        self.differences: list[str] = []
        self.done = threading.Event()
        self._lines = lines
        self._ids = Ids()
        self._strict = StrictListener()

    def greet(self, socket: ServerConnection, request: Request) -> Response | None:
        if request.path != "/lmstudio-greeting":
            return None
        return socket.respond(http.HTTPStatus.OK, '{"lmstudio":true}')

    def converse(self, socket: ServerConnection) -> None:
        try:
            for line in self._lines:
                self._exchange(socket, line)
        except (AssertionError, TimeoutError, LookupError, ValueError, WebSocketException) as error:
            self.differences.append(repr(error))
        self.done.set()
        for received in socket:  # until the client closes the connection
            self.differences.append(f"sent {received!r} after the end of the transcript")

    def _exchange(self, socket: ServerConnection, line: Line) -> None:
        assert socket.request is not None, "the handshake is over"
        namespace = socket.request.path.strip("/")
        if line.by == "server":
            text = json.dumps(self._ids.translate(line.frame))
            self._strict.feed("server", namespace, text)
            socket.send(text)
            return
        received = socket.recv(timeout=WAIT)
        assert isinstance(received, str), "a client sends text frames"
        self._strict.feed("client", namespace, received)
        frame = self._ids.record(line.frame, json.loads(received))
        if "authVersion" in line.frame:
            assert frame.keys() == line.frame.keys()
        elif _bare(frame) != line.frame:
            self.differences.append(f"sent {frame}, the transcript has {line.frame}")


def _bare(value: Any) -> Any:
    """Return a frame without the keys of a JSON schema that may differ."""
    if isinstance(value, dict):
        return {name: _bare(each) for name, each in value.items() if name not in {"title", "additionalProperties"}}
    return [_bare(each) for each in value] if isinstance(value, list) else value


@contextmanager
def reading(lines: list[Line]) -> Iterator[str]:
    """Yield the address of a server that plays a transcript; at the end, all of its frames must have been exchanged."""
    reader = Reader(lines)
    with serve(reader.converse, "127.0.0.1", 0, process_request=reader.greet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.socket.getsockname()[1]}"
            assert reader.done.wait(WAIT), "the client sends fewer frames than the transcript has"
        finally:
            server.shutdown()
            thread.join(WAIT)
    assert not reader.differences, reader.differences
