"""A bare client: it sends exactly the frames of a test, and returns the frames that it receives."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Protocol

from websockets.sync.client import ClientConnection, connect

TIMEOUT = 600.0
STACK: dict[str, Any] = {"layers": []}


class Wire:
    """One authenticated socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._ids = count(1)

    def send_frame(self, frame: Any) -> None:
        """Send a frame; text is sent unchanged."""
        self.socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    def receive(self) -> Any:
        """Return the next frame."""
        return json.loads(self.socket.recv(TIMEOUT))

    def receive_until_closed(self) -> None:
        """Read until the socket is closed.

        Raises:
            ConnectionClosed: When it is.
        """
        while True:
            self.socket.recv(TIMEOUT)

    def call(self, endpoint: str, parameter: Any = None) -> dict[str, Any]:
        """Call, and return the reply, which must be the next frame."""
        number = next(self._ids)
        self.send_frame({"type": "rpcCall", "endpoint": endpoint, "callId": number} | _present("parameter", parameter))
        response: dict[str, Any] = self.receive()
        assert response.pop("callId") == number
        return response

    def result(self, endpoint: str, parameter: Any = None) -> Any:
        """Call, and return the result."""
        response = self.call(endpoint, parameter)
        assert response["type"] == "rpcResult", response
        return response.get("result")

    def rpc_error(self, endpoint: str, parameter: Any = None) -> dict[str, Any]:
        """Call, and return the error."""
        response = self.call(endpoint, parameter)
        assert response["type"] == "rpcError", response
        error: dict[str, Any] = response["error"]
        return error

    def open(self, endpoint: str, parameter: Any = None) -> int:
        """Open a channel, and return its number."""
        number = next(self._ids)
        frame = {"type": "channelCreate", "endpoint": endpoint, "channelId": number}
        self.send_frame(frame | _present("creationParameter", parameter))
        return number

    def send(self, channel: int, packet: Any) -> None:
        """Send a packet on a channel."""
        self.send_frame({"type": "channelSend", "channelId": channel, "message": packet})

    def packets(self, channel: int) -> Iterator[dict[str, Any]]:
        """Yield the packets of a channel until it ends; an error is yielded as a packet of the type `error`."""
        while True:
            frame = self.receive()
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
        """Load a new instance and return its info."""
        *_, last = self.stream("loadModel", {"modelKey": key, "loadConfigStack": STACK} | members)
        assert last["type"] == "success", last
        info: dict[str, Any] = last["info"]
        return info

    def get(self, identifier: str, **members: Any) -> list[dict[str, Any]]:
        """Get or load, and return the packets."""
        return self.stream("getOrLoad", {"identifier": identifier, "loadConfigStack": STACK} | members)


def _present(name: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {name: value}


class Server(Protocol):
    """What a socket is opened to."""

    @property
    def address(self) -> str:
        """`host:port`."""
        ...


@contextmanager
def bare(server: Server, namespace: str = "llm", **settings: Any) -> Iterator[Wire]:
    """Open a socket without authentication."""
    settings = {"compression": None, "max_size": None, "open_timeout": TIMEOUT, "ping_interval": None} | settings
    with connect(f"ws://{server.address}/{namespace}", **settings) as socket:
        yield Wire(socket)


@contextmanager
def wire(
    server: Server,
    namespace: str = "llm",
    client: str = "guest:me",
    passkey: str = "secret",
    **settings: Any,
) -> Iterator[Wire]:
    """Open an authenticated socket."""
    with bare(server, namespace, **settings) as opened:
        opened.send_frame({"authVersion": 1, "clientIdentifier": client, "clientPasskey": passkey})
        assert opened.receive() == {"success": True}
        yield opened


def named(identifier: str) -> dict[str, Any]:
    """Return the specifier of a loaded model by name."""
    return {"type": "query", "query": {"identifier": identifier}}


def prediction_request(model: str, text: str = "Hello", fields: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the parameter of a prediction; settings have their wire keys without `llm.prediction.`."""
    return {
        "modelSpecifier": named(model),
        "history": {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]},
        "predictionConfigStack": stack(fields or {}),
    }


def stack(fields: dict[str, Any], layer: str = "apiOverride", prefix: str = "llm.prediction.") -> dict[str, Any]:
    """Return a stack of one layer."""
    settings = [{"key": f"{prefix}{name}", "value": value} for name, value in fields.items()]
    return {"layers": [{"layerName": layer, "config": {"fields": settings}}]}


def load_stack(kind: str = "llm", **fields: Any) -> dict[str, Any]:
    """Return the settings of a load, which have their wire keys without `llm.load.`."""
    return stack(fields, prefix=f"{kind}.load.")
