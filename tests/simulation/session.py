"""A client's session that says what no session may do, whatever goes wrong around it."""

import json
from typing import Any

from lmstudio_integrations.protocol import envelope
from lmstudio_integrations.protocol.endpoints import Channel
from lmstudio_integrations.protocol.exchange import Exchange
from lmstudio_integrations.protocol.session import ClientSession


class ViolationError(AssertionError):
    """Something that must never happen."""


class WatchedSession(ClientSession):
    """The session of a socket. It keeps what it finds for the end of the seed."""

    found: list[str]
    """What all sessions of a seed have found; `simulation` sets it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._stopped: set[int] = set()
        self._ended: set[int] = set()

    def _send(self, exchange: Exchange, now: float) -> None:
        if not exchange.has_caller:
            self.found.append(f"{exchange.label} is sent, although nobody waits for it")
        super()._send(exchange, now)

    def close(self, exchange: Exchange, error: BaseException | None = None) -> None:
        super().close(exchange, error)
        is_open = self._sent.get(exchange.id) is exchange
        if is_open and isinstance(exchange.endpoint, Channel) and exchange.endpoint.stop and not exchange.cancelled:
            self.found.append(f"{exchange.label} is closed, and the server works on")

    def data_to_send(self) -> list[str]:
        frames = super().data_to_send()
        for frame in map(json.loads, frames):
            if frame.get("type") == "channelSend" and frame["message"]["type"] == "cancel":
                number = frame["channelId"]
                if number in self._stopped | self._ended:
                    self.found.append(f"channel {number} is cancelled, although it was cancelled before, or has ended")
                self._stopped.add(number)
        return frames

    def receive(self, data: str | bytes, now: float) -> None:
        super().receive(data, now)
        frame, _ = envelope.parse(data)  # tests of damaged frames use it, too
        if frame is not None and frame.get("type") in {"channelClose", "channelError"}:
            self._ended.add(frame["channelId"])
