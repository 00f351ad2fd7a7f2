"""The order of the packets in a tool session (docs/protocol.md#tool-sessions); `listener.py` keeps one per channel."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ToolSession:
    """What has happened in a session. Both sides' packets come in the order in which the server sees them."""

    _ready: bool = False
    _calls: int = 0
    _ended: set[int] = field(default_factory=set[int])
    _aborted: set[int] = field(default_factory=set[int])

    def check_client(self, packet: dict[str, Any]) -> Iterator[str]:
        """Check a packet of the client, whose shape is right."""
        match packet:
            case {"type": "callTool", "callId": call}:
                if not self._ready:
                    yield "a tool must not be called before sessionReady"
                if call != self._calls:
                    yield f"the next tool call has the callId {self._calls}, not {call}"
                self._calls = max(self._calls, call + 1)
            case {"type": "abortToolCall", "callId": call}:
                if call >= self._calls:
                    yield f"the tool call {call} was never made"
                if call in self._aborted:
                    yield f"the tool call {call} was aborted before"
                self._aborted.add(call)
            case _:
                pass

    def check_server(self, packet: dict[str, Any]) -> Iterator[str]:
        """Check a packet of the server, whose shape is right."""
        if self._ready == (packet["type"] == "sessionReady"):
            yield "sessionReady must come first, and once"
        self._ready = True
        if "callId" in packet:
            yield from self._check_call(packet["type"], packet["callId"])

    def _check_call(self, kind: str, call: int) -> Iterator[str]:
        if call >= self._calls:
            yield f"the tool call {call} was never made"
        if call in self._aborted:
            yield f"the tool call {call} was aborted, so nothing of it may follow"
        if call in self._ended:
            yield f"the tool call {call} has ended before"
        if kind in {"toolCallComplete", "toolCallError"}:
            self._ended.add(call)
