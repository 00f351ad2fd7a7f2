"""The conversations of §10, held by the whole client over a socket whose other end reads them from the page."""

import http
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from lmstudio_integrations.client.sync import Client
from tests.protocol.transcripts import (
    ANY_MODEL_CANCEL_UNLOAD,
    AUTHENTICATION,
    LIST_LOAD_RESPOND_UNLOAD,
    TOOL_ROUND,
    Ids,
    Line,
    lines_of,
)
from tests.requirements import proves
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
        for _ in socket:  # until the client goes
            self.departures.append("the client says more than is on the page")

    def _take_turn(self, socket: ServerConnection, line: Line) -> None:
        if line.by == "server":
            text = json.dumps(self._ids.translate(line.frame))
            self._strict.feed("server", "llm", text)
            socket.send(text)
            return
        said = socket.recv(timeout=WAIT)
        self._strict.feed("client", "llm", said)
        frame = self._ids.learn(line.frame, json.loads(said))
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
def reading(lines: list[Line]) -> Iterator[Client]:
    """Give a client whose server reads from the page; at the end everything on it must have been said."""
    reader = Reader(lines)
    with serve(reader.converse, "127.0.0.1", 0, process_request=reader.greet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with Client(f"127.0.0.1:{server.socket.getsockname()[1]}", idle_timeout=WAIT) as client:
                yield client
                assert reader.done.wait(WAIT), "the client says less than is on the page"
        finally:
            server.shutdown()
            thread.join(WAIT)
    assert not reader.departures, reader.departures


@proves("C-TRANSCRIPTS")
def test_the_client_lists_loads_responds_and_unloads_word_for_word() -> None:
    told: list[float] = []
    with reading(lines_of(AUTHENTICATION + LIST_LOAD_RESPOND_UNLOAD)) as client:
        assert client.llm.list_loaded() == []
        model = client.llm.model("m1", on_load_progress=told.append)
        result = model.respond("hi")
        model.unload()
    assert told == [0.0, 0.5, 1.0]
    assert (result.content, result.stats.stop_reason) == ("Hello", "eosFound")


def _as_we_say_it(line: Line) -> Line | None:
    """Return a line of the TypeScript SDK as ours has it: it names models by identifier, and unloads without a look."""
    if line.frame.get("callId") == 2:
        return None
    text = json.dumps(line.frame)
    text = text.replace(
        '{"type": "instanceReference", "instanceReference": "ref-a"}',
        '{"type": "query", "query": {"identifier": "a"}}',
    )
    return Line(line.by, json.loads(text.replace(', "deviceIdentifier": null}', "}"))) if line.by == "client" else line


@proves("C-TRANSCRIPTS", "C-CANCEL")
def test_the_client_takes_any_model_cancels_and_unloads() -> None:
    lines = [_as_we_say_it(line) for line in lines_of(AUTHENTICATION + ANY_MODEL_CANCEL_UNLOAD)]
    with reading([line for line in lines if line is not None]) as client:
        model = client.llm.model()
        stream = model.respond_stream("hi")
        assert next(stream).content == "Hel"
        stream.cancel()
        result = stream.wait_for_result()
        model.unload()
    assert (result.content, result.stats.stop_reason) == ("Hel", "userStopped")


@proves("C-TRANSCRIPTS")
def test_the_client_plays_a_round_of_tools_word_for_word() -> None:
    load = lines_of(LIST_LOAD_RESPOND_UNLOAD)[2:7]

    def add(a: int, b: int) -> int:
        return a + b

    with reading([*lines_of(AUTHENTICATION), *load, *_later(lines_of(TOOL_ROUND))]) as client:
        model = client.llm.model("m1")
        tool: Any = {
            "name": "add",
            "description": "add numbers",
            "parameters": {"a": int, "b": int},
            "implementation": add,
        }
        result = model.act("hi", [tool])
    assert result.rounds == 2


def _later(lines: list[Line]) -> list[Line]:
    """Return lines with ids behind those of a conversation before them."""
    return [Line(by, {**frame, "channelId": frame["channelId"] + 10}) for by, frame in lines]
