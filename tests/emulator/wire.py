"""A bare client: it says exactly what a test tells it to say, and shows exactly what comes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from websockets.sync.client import ClientConnection, connect

from lmstudio_integrations.emulator import Emulator

TIMEOUT = 5.0
STACK: dict[str, Any] = {"layers": []}


class Wire:
    """One socket, let in already."""

    timeout = TIMEOUT

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._ids = count(1)

    def say(self, frame: Any) -> None:
        """Send a frame; text goes as it is."""
        self.socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    def hear(self) -> Any:
        """Return the next frame."""
        return json.loads(self.socket.recv(self.timeout))

    def hear_out(self) -> None:
        """Read on until the socket is gone.

        Raises:
            ConnectionClosed: When it is.
        """
        while True:
            self.socket.recv(TIMEOUT)

    def call(self, endpoint: str, parameter: Any = None) -> dict[str, Any]:
        """Call, and return the answer, which must be the next frame."""
        number = next(self._ids)
        self.say({"type": "rpcCall", "endpoint": endpoint, "callId": number} | _present("parameter", parameter))
        answer: dict[str, Any] = self.hear()
        assert answer.pop("callId") == number
        return answer

    def result(self, endpoint: str, parameter: Any = None) -> Any:
        """Call, and return the result."""
        answer = self.call(endpoint, parameter)
        assert answer["type"] == "rpcResult", answer
        return answer.get("result")

    def refusal(self, endpoint: str, parameter: Any = None) -> dict[str, Any]:
        """Call, and return the error."""
        answer = self.call(endpoint, parameter)
        assert answer["type"] == "rpcError", answer
        error: dict[str, Any] = answer["error"]
        return error

    def open(self, endpoint: str, parameter: Any = None) -> int:
        """Open a channel, and return its number."""
        number = next(self._ids)
        frame = {"type": "channelCreate", "endpoint": endpoint, "channelId": number}
        self.say(frame | _present("creationParameter", parameter))
        return number

    def send(self, channel: int, packet: Any) -> None:
        """Send a packet on a channel."""
        self.say({"type": "channelSend", "channelId": channel, "message": packet})

    def packets(self, channel: int) -> Iterator[dict[str, Any]]:
        """Yield the packets of a channel until it ends; an error comes as a packet of the type `error`."""
        while True:
            frame = self.hear()
            assert frame["channelId"] == channel, frame
            if frame["type"] == "channelClose":
                return
            if frame["type"] == "channelError":
                yield {"type": "error", "error": frame["error"]}
                return
            yield frame["message"]

    def stream(self, endpoint: str, parameter: Any = None) -> list[dict[str, Any]]:
        """Open a channel and return its packets."""
        return list(self.packets(self.open(endpoint, parameter)))

    def load(self, key: str, **members: Any) -> dict[str, Any]:
        """Load a new instance and return what is told of it."""
        *_, last = self.stream("loadModel", {"modelKey": key, "loadConfigStack": STACK} | members)
        assert last["type"] == "success", last
        info: dict[str, Any] = last["info"]
        return info

    def get(self, identifier: str, **members: Any) -> list[dict[str, Any]]:
        """Get or load, and return the packets."""
        return self.stream("getOrLoad", {"identifier": identifier, "loadConfigStack": STACK} | members)


def _present(name: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {name: value}


@contextmanager
def bare(server: Emulator, namespace: str = "llm", **options: Any) -> Iterator[Wire]:
    """Open a socket without a word."""
    with connect(f"ws://{server.address}/{namespace}", compression=None, max_size=None, **options) as socket:
        yield Wire(socket)


@contextmanager
def wire(
    server: Emulator, namespace: str = "llm", client: str = "guest:me", passkey: str = "secret", **options: Any
) -> Iterator[Wire]:
    """Open a socket and be let in."""
    with bare(server, namespace, **options) as opened:
        opened.say({"authVersion": 1, "clientIdentifier": client, "clientPasskey": passkey})
        assert opened.hear() == {"success": True}
        yield opened


def named(identifier: str) -> dict[str, Any]:
    """Return the specifier of a loaded model by name."""
    return {"type": "query", "query": {"identifier": identifier}}


def asking(model: str, text: str = "Hello", fields: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what opens a prediction; settings are given by their wire keys after `llm.prediction.`."""
    return {
        "modelSpecifier": named(model),
        "history": {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]},
        "predictionConfigStack": stack(fields or {}),
    }


def stack(fields: dict[str, Any], layer: str = "apiOverride") -> dict[str, Any]:
    """Return a stack of one layer."""
    settings = [{"key": f"llm.prediction.{name}", "value": value} for name, value in fields.items()]
    return {"layers": [{"layerName": layer, "config": {"fields": settings}}]}
