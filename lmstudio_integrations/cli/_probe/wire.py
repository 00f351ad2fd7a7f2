"""A bare connection to one namespace, for requests that the client does not make."""

import json
import time
from collections.abc import Callable, Collection
from itertools import count
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import connect

from lmstudio_integrations.client.transport.connect.addresses import Credentials
from lmstudio_integrations.errors import LMStudioAuthenticationError

REPLY_TIMEOUT = 10.0
"""Seconds for the reply to a call. A server never replies to some of them (docs/protocol.md#invalid-input)."""

END_TIMEOUT = 120.0
"""Seconds for what waits for a model."""

_ENDS = {"channelClose", "channelError"}

Frame = dict[str, Any]


class Wire:
    """An authenticated connection. A context manager.

    Args:
        address: `host:port` of the server.
        namespace: The namespace.
        credentials: Who connects.

    Raises:
        LMStudioAuthenticationError: If the server rejects the credentials, when the block is entered.
        OSError: If the server is not reachable, or closes the connection, then.
        TimeoutError: If it does not respond, then or later.
    """

    def __init__(self, address: str, namespace: str, credentials: Credentials) -> None:
        self._credentials = credentials
        self._ids = count(1)
        self._socket = connect(f"ws://{address}/{namespace}", compression=None, max_size=None, proxy=None)

    def __enter__(self) -> Self:
        try:
            self._authenticate()
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def call(self, endpoint: str, parameter: Any = None) -> Frame:
        """Make a call, and return the reply, or the warning that comes in its place."""
        number = next(self._ids)
        frame = {"type": "rpcCall", "endpoint": endpoint, "callId": number}
        self._send(frame if parameter is None else {**frame, "parameter": parameter})
        return self.read(lambda frame: frame.get("callId") == number or _warns(frame, endpoint), REPLY_TIMEOUT)

    def open(self, endpoint: str, parameter: Any) -> int:
        """Open a channel, and return its number."""
        number = next(self._ids)
        self._send({"type": "channelCreate", "endpoint": endpoint, "channelId": number, "creationParameter": parameter})
        return number

    def cancel(self, channel: int) -> None:
        """Cancel what a channel does."""
        self._send({"type": "channelSend", "channelId": channel, "message": {"type": "cancel"}})

    def stream(self, endpoint: str, parameter: Any) -> Frame:
        """Open a channel, read until it ends, and return the last frame, or the warning that comes in its place."""
        channel = self.open(endpoint, parameter)
        return self.read(lambda frame: _ends(frame, {channel}) or _warns(frame, endpoint))

    def finish(self, *channels: int) -> None:
        """Read until these channels have ended."""
        left = set(channels)
        while left:
            left.discard(self.read(lambda frame: _ends(frame, left))["channelId"])

    def wait_for_text(self, channel: int) -> None:
        """Read until a prediction generates."""

        def is_text(frame: Frame) -> bool:
            return frame.get("channelId") == channel and frame.get("message", {}).get("type") == "fragment"

        self.read(lambda frame: is_text(frame) or _ends(frame, {channel}))

    def read(self, is_last: Callable[[Frame], bool], timeout: float = END_TIMEOUT) -> Frame:
        """Return the first frame that is the last one to read; what comes before it is recorded, and skipped here."""
        deadline = time.monotonic() + timeout
        while True:
            frame = self._receive(deadline - time.monotonic())
            if is_last(frame):
                return frame

    def _authenticate(self) -> None:
        identifier, passkey = self._credentials.identifier, self._credentials.passkey
        self._send({"authVersion": 1, "clientIdentifier": identifier, "clientPasskey": passkey})
        result = self._receive(REPLY_TIMEOUT)
        if result.get("success") is not True:
            raise LMStudioAuthenticationError(f"the server rejected the credentials: {result.get('error')}")

    def _send(self, frame: Frame) -> None:
        self._socket.send(json.dumps(frame))

    def _receive(self, timeout: float) -> Frame:
        frame: Frame = json.loads(self._socket.recv(max(timeout, 0.0)))
        return frame


def _ends(frame: Frame, channels: Collection[int]) -> bool:
    return frame.get("channelId") in channels and frame.get("type") in _ENDS


def _warns(frame: Frame, endpoint: str) -> bool:
    return frame.get("type") == "communicationWarning" and endpoint in str(frame.get("warning"))
