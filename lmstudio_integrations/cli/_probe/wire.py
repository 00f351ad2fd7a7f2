"""A bare connection to one namespace, for requests that the client does not make."""

import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
from typing import Any

from websockets.sync.client import ClientConnection, connect

from lmstudio_integrations._support.json_text import dumps
from lmstudio_integrations.client.transport.connect.addresses import Credentials
from lmstudio_integrations.errors import LMStudioAuthenticationError, LMStudioProtocolError
from lmstudio_integrations.protocol import envelope

REPLY_TIMEOUT = 10.0
"""Seconds for the reply to a call. A server never replies to some of them (docs/protocol.md#invalid-input)."""

END_TIMEOUT = 120.0
"""Seconds for what waits for a model."""

_ENDS = {"channelClose", "channelError"}

Frame = dict[str, Any]


@contextmanager
def open_wire(address: str, namespace: str, credentials: Credentials) -> Generator["Wire", None, None]:
    """Connect and authenticate.

    Args:
        address: `host:port` of the server.
        namespace: The namespace.
        credentials: Who connects.

    Raises:
        LMStudioAuthenticationError: If the server rejects the credentials.
        OSError: If the server is not reachable.
        TimeoutError: If it does not respond, now or later.
        WebSocketException: If it does not speak the protocol, or closes the connection, now or later.
    """
    with connect(f"ws://{address}/{namespace}", compression=None, max_size=None, proxy=None) as socket:
        wire = Wire(socket)
        wire.authenticate(credentials)
        yield wire


class Wire:
    """A connection to a namespace. What it does not return is still recorded by the proxy."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = count(1)
        self._ended: set[int] = set()
        """The channels that have ended, also while something else was read."""

    def authenticate(self, credentials: Credentials) -> None:
        self._socket.send(envelope.auth(credentials.identifier, credentials.passkey))
        result = self._receive(REPLY_TIMEOUT)
        if result.get("success") is not True:
            raise LMStudioAuthenticationError(f"the server rejected the credentials: {result.get('error')}")

    def call(self, endpoint: str, parameter: Any = None) -> Frame:
        """Make a call, and return the reply, or the warning that comes in its place."""
        number = next(self._ids)
        self._socket.send(envelope.rpc_call(endpoint, number, None if parameter is None else dumps(parameter)))
        return self.read(lambda frame: frame.get("callId") == number or _warns(frame, endpoint), REPLY_TIMEOUT)

    def result(self, endpoint: str, parameter: Any) -> Any:
        """Make a call, and return its result.

        Raises:
            LMStudioProtocolError: If there is none.
        """
        frame = self.call(endpoint, parameter)
        if "result" not in frame:
            raise LMStudioProtocolError(f"{endpoint} has no result, but {frame}")
        return frame["result"]

    def open(self, endpoint: str, parameter: Any) -> int:
        """Open a channel, and return its number."""
        number = next(self._ids)
        self._socket.send(envelope.channel_create(endpoint, number, dumps(parameter)))
        return number

    def cancel(self, channel: int) -> None:
        """Cancel what a channel does."""
        self._socket.send(envelope.channel_send(channel, '{"type":"cancel"}'))

    def stream(self, endpoint: str, parameter: Any, timeout: float = END_TIMEOUT) -> Frame:
        """Open a channel, read until it ends, and return the last frame, or the warning that comes in its place."""
        channel = self.open(endpoint, parameter)
        return self.read(lambda frame: channel in self._ended or _warns(frame, endpoint), timeout)

    def finish(self, *channels: int) -> None:
        """Read until these channels have ended."""
        if not self._ended.issuperset(channels):
            self.read(lambda _frame: self._ended.issuperset(channels))

    def wait_for_text(self, channel: int) -> None:
        """Read until a prediction generates, or has ended."""

        def is_text(frame: Frame) -> bool:
            return frame.get("channelId") == channel and frame.get("message", {}).get("type") == "fragment"

        self.read(lambda frame: is_text(frame) or channel in self._ended)

    def read(self, is_last: Callable[[Frame], bool], timeout: float = END_TIMEOUT) -> Frame:
        """Return the first frame that is the last one to read; what comes before it is recorded, and skipped here."""
        deadline = time.monotonic() + timeout
        while True:
            frame = self._receive(deadline - time.monotonic())
            if frame.get("type") in _ENDS:
                self._ended.add(frame["channelId"])
            if is_last(frame):
                return frame

    def _receive(self, timeout: float) -> Frame:
        frame: Frame = json.loads(self._socket.recv(max(timeout, 0.0)))
        return frame


def _warns(frame: Frame, endpoint: str) -> bool:
    return frame.get("type") == "communicationWarning" and endpoint in str(frame.get("warning"))
