"""A bare connection to one namespace, for requests that the client does not make, and their parameters."""

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

from websockets.sync.client import ClientConnection, connect

from lmstudio_integrations._support.text import dumps
from lmstudio_integrations.cassettes.recording import Conversation, Recording
from lmstudio_integrations.client.transport.connect.addresses import Credentials
from lmstudio_integrations.errors import LMStudioAuthenticationError
from lmstudio_integrations.protocol import envelope
from lmstudio_integrations.protocol.kv_config import layer_of
from lmstudio_integrations.types._config_base import checked
from lmstudio_integrations.types.chat import WireHistory

REPLY_TIMEOUT = 10.0
"""Seconds for the reply to a call. A server never replies to some of them (docs/protocol.md#invalid-input)."""

END_TIMEOUT = 120.0
"""Seconds for the next frame of what waits for a model."""

GREETING = "Say hello."

JsonDict = dict[str, Any]


@contextmanager
def open_socket(address: str, namespace: str, credentials: Credentials) -> Generator[ClientConnection]:
    """Connect and authenticate.

    Raises:
        LMStudioAuthenticationError: If the server rejects the credentials.
        OSError: If the server is not reachable.
        TimeoutError: If it does not respond, now or later.
        WebSocketException: If it does not speak the protocol, or closes the connection, now or later.
    """
    with connect(f"ws://{address}/{namespace}", compression=None, max_size=None, proxy=None) as socket:
        socket.send(envelope.auth(credentials.identifier, credentials.passkey))
        result = json.loads(socket.recv(REPLY_TIMEOUT))
        if result.get("success") is not True:
            raise LMStudioAuthenticationError(f"the server rejected the credentials: {result.get('error')}")
        yield socket


@contextmanager
def open_wire(recording: Recording, namespace: str, credentials: Credentials) -> Generator["Wire"]:
    """Connect to the server that is recorded, and authenticate; raises what `open_socket` does."""
    with open_socket(recording.address, namespace, credentials) as socket:
        conversation = recording.conversation(namespace)
        try:
            yield Wire(socket, conversation)
        finally:
            conversation.end()


class Wire:
    """A connection to a namespace. What it reads is recorded, also what it does not return."""

    def __init__(self, socket: ClientConnection, conversation: Conversation) -> None:
        self._socket = socket
        self._conversation = conversation
        self._ids = count(1)
        self._ended: set[int] = set()
        """The channels that have ended, also while something else was read."""

    def call(self, endpoint: str, parameter: Any = None) -> Any:
        """Make a call, and return the result; `None` if there is none, but an error or a warning."""
        number = next(self._ids)
        self._send(envelope.rpc_call(endpoint, number, None if parameter is None else dumps(parameter)))
        reply = self._read(lambda frame: frame.get("callId") == number or _warns(frame, endpoint), REPLY_TIMEOUT)
        return reply.get("result")

    def open(self, endpoint: str, parameter: Any) -> int:
        """Open a channel, and return its number."""
        number = next(self._ids)
        self._send(envelope.channel_create(endpoint, number, dumps(parameter)))
        return number

    def cancel(self, channel: int) -> None:
        """Cancel what a channel does."""
        self._send(envelope.channel_send(channel, '{"type":"cancel"}'))

    def stream(self, endpoint: str, parameter: Any, timeout: float = END_TIMEOUT) -> None:
        """Open a channel, and read until it ends, or until a warning comes in its place."""
        channel = self.open(endpoint, parameter)
        self._read(lambda frame: channel in self._ended or _warns(frame, endpoint), timeout)

    def finish(self, *channels: int) -> None:
        """Read until these channels have ended."""
        if not self._ended.issuperset(channels):
            self._read(lambda _frame: self._ended.issuperset(channels))

    def wait_for_text(self, channel: int) -> None:
        """Read until a prediction generates, or has ended."""
        self._read(
            lambda frame: (
                channel in self._ended
                or (frame.get("channelId") == channel and frame.get("message", {}).get("type") == "fragment")
            )
        )

    def _send(self, frame: str) -> None:
        self._conversation.add("client", frame)
        self._socket.send(frame)

    def _read(self, is_last: Callable[[JsonDict], bool], timeout: float = END_TIMEOUT) -> JsonDict:
        """Return the first frame that is the last one to read; the timeout is for each frame until then."""
        while True:
            data = self._socket.recv(timeout)
            self._conversation.add("server", data)
            frame: JsonDict = json.loads(data)
            if frame.get("type") in {"channelClose", "channelError"}:
                self._ended.add(frame["channelId"])
            if is_last(frame):
                return frame


def _warns(frame: JsonDict, endpoint: str) -> bool:
    return frame.get("type") == "communicationWarning" and endpoint in str(frame.get("warning"))


def by_identifier(identifier: str) -> JsonDict:
    """Return the specifier of an instance by its identifier."""
    return {"type": "query", "query": {"identifier": identifier}}


def by_reference(reference: str) -> JsonDict:
    """Return the specifier of one loaded instance, which no reload has again."""
    return {"type": "instanceReference", "instanceReference": reference}


def config_stack(fields: Mapping[str, Any]) -> JsonDict:
    """Return settings, by their full keys, as the one layer of a stack."""
    return {"layers": [layer_of("apiOverride", fields)]}


def prediction(
    specifier: JsonDict, prompt: str = GREETING, max_tokens: int = 4, fields: Mapping[str, Any] | None = None
) -> JsonDict:
    """Return the parameter of `predict`; without a prompt and a limit, for a response whose content does not matter."""
    limit = {"llm.prediction.maxPredictedTokens": checked(max_tokens)}
    return {
        "modelSpecifier": specifier,
        "history": WireHistory.of_prompt(prompt).to_dict(),
        "predictionConfigStack": config_stack({**limit, **(fields or {})}),
    }
