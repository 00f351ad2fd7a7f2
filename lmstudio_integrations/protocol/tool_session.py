"""The calls of a tool session, without I/O: many calls run at once on one channel (docs/protocol.md#tool-sessions).

`session.py` owns the channel. It asks here what to send for a call, and which call a packet is for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.protocol.endpoints import Channel, Endpoint, Rpc
from lmstudio_integrations.protocol.exchange import Exchange

CALL_TOOL = Rpc("callTool", timeout_name=None)
"""A call of a tool, which may take any time. It ends with its result."""

LIST_TOOLS = Rpc("sessionReady", timeout_name=None)
"""Waits until the session is ready, and ends with the definitions of its tools. Nothing is sent for it."""

_REPORTS = {"toolCallStatus": "statusText", "toolCallWarn": "warnText"}
_ENDS = {"toolCallComplete", "toolCallError"}


@dataclass(slots=True, eq=False)
class ToolSession(Exchange):
    """The channel of a tool session, and the calls that run on it.

    Attributes:
        definitions: The tools, in wire form, once the session is ready.
    """

    definitions: list[Any] | None = None
    _waiting: list[Exchange] = field(default_factory=list[Exchange])
    """Calls that were made before the session is ready."""
    _running: dict[int, Exchange] = field(default_factory=dict[int, Exchange])
    _next_id: int = 0

    @property
    def calls(self) -> list[Exchange]:
        """The calls that have not ended."""
        return [*self._waiting, *self._running.values()]

    def start(self, call: Exchange) -> str | None:
        """Start a call; return the packet to send for it now, if there is one."""
        if self.definitions is None:
            self._waiting.append(call)
            return None
        if call.endpoint is LIST_TOOLS:
            _end(call, self.definitions)
            return None
        # The id of an exchange is 0 until it is sent, and the first call of a session has the number 0.
        number, self._next_id = self._next_id, self._next_id + 1
        call.id = number + 1
        self._running[number] = call
        assert call.parameter is not None, "a call has a name and arguments"
        parameter, call.parameter = call.parameter, None
        return f'{{"type":"callTool","callId":{number},{parameter[1:]}'

    def receive(self, packet: Mapping[str, Any]) -> list[str]:
        """Receive a packet; return the packets to send because of it.

        Raises:
            LookupError, TypeError: If it cannot be read.
        """
        kind = packet["type"]
        if kind == "sessionReady":
            return self._begin(packet["toolDefinitions"])
        if kind in _REPORTS and isinstance(packet.get(_REPORTS[kind]), str):
            # Packets of unknown calls are legal: the call may have been aborted (docs/protocol.md#tool-sessions).
            call = self._running.get(packet["callId"])
            if call is not None:
                call.receiver.put(packet)
        elif kind in _ENDS:
            call = self._running.pop(packet["callId"], None)
            if call is not None:
                _end(call, packet)
        return []

    def abort(self, call: Exchange) -> str | None:
        """Forget a call; return the packet to send for that, if there is one."""
        if call in self._waiting:
            self._waiting.remove(call)
        elif self._running.get(call.id - 1) is call:
            del self._running[call.id - 1]
            return f'{{"type":"abortToolCall","callId":{call.id - 1}}}'
        return None

    def pop_calls(self) -> list[Exchange]:
        """Return the calls that have not ended, and forget them."""
        calls = self.calls
        self._waiting.clear()
        self._running.clear()
        return calls

    def _begin(self, definitions: object) -> list[str]:
        if not is_list(definitions) or not all(map(is_object, definitions)):
            raise TypeError("the definitions of the tools are no list of objects")
        self.definitions = definitions
        waiting, self._waiting = self._waiting, []
        return [packet for packet in map(self.start, waiting) if packet is not None]


def exchange_type(endpoint: Endpoint) -> type[Exchange]:
    """Return the class of an exchange: where calls run on the channel, it is a tool session."""
    return ToolSession if isinstance(endpoint, Channel) and endpoint.has_calls else Exchange


def _end(call: Exchange, result: object) -> None:
    call.packets += 1
    call.receiver.put(result)
    call.finish(None)
