"""A server that reads its part of a conversation from a page, and compares the client's part with it."""

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
from tests.strict.listener import StrictListener

WAIT = 5.0


class Reader:
    """The other end: says the server's lines, and notes where the client departs from its own."""

    def __init__(self, lines: list[Line]) -> None:
        self.departures: list[str] = []
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
                self._take_turn(socket, line)
        except (AssertionError, TimeoutError, LookupError, ValueError, WebSocketException) as error:
            self.departures.append(repr(error))
        self.done.set()
        for said in socket:  # until the client goes
            self.departures.append(f"said {said!r} after the end of the page")

    def _take_turn(self, socket: ServerConnection, line: Line) -> None:
        if line.by == "server":
            text = json.dumps(self._ids.translate(line.frame))
            self._strict.feed("server", "llm", text)
            socket.send(text)
            return
        said = socket.recv(timeout=WAIT)
        assert isinstance(said, str), "a client sends text frames"
        self._strict.feed("client", "llm", said)
        frame = self._ids.record(line.frame, json.loads(said))
        if "authVersion" in line.frame:
            assert frame.keys() == line.frame.keys()
        elif _bare(frame) != line.frame:
            self.departures.append(f"said {frame}, on the page stands {line.frame}")


def _bare(value: Any) -> Any:
    """Return a frame without what a schema may say besides."""
    if isinstance(value, dict):
        return {name: _bare(each) for name, each in value.items() if name not in {"title", "additionalProperties"}}
    return [_bare(each) for each in value] if isinstance(value, list) else value


@contextmanager
def reading(lines: list[Line]) -> Iterator[str]:
    """Give the address of a server that reads from a page; at the end everything on it must have been said."""
    reader = Reader(lines)
    with serve(reader.converse, "127.0.0.1", 0, process_request=reader.greet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.socket.getsockname()[1]}"
            assert reader.done.wait(WAIT), "the client says less than is on the page"
        finally:
            server.shutdown()
            thread.join(WAIT)
    assert not reader.departures, reader.departures
