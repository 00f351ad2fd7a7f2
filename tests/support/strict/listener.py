"""Checks the frames on one socket against the description of the protocol: all of the client, some of the server."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.strict.endpoint_shapes import (
    AUTHENTICATION,
    ENDPOINTS,
    ERROR,
    FRAMES,
    LAST_OF_CLIENT,
    Call,
    Stream,
)
from tests.support.strict.shapes import Shape, Tagged, is_integer
from tests.support.strict.tool_sessions import ToolSession

Direction = Literal["client", "server"]
MAX_WARNINGS = 5


class StrictError(AssertionError):
    """A frame that its side must not send."""


@dataclass
class StrictListener:
    """Receives the frames of both sides of one socket, in the order in which the server sees them.

    Of the server's, it checks those on channels for which `Stream.reply` says what they are.
    """

    _introduced: bool = False
    _authenticated: bool = False
    _warnings: int = 0
    _calls: set[int] = field(default_factory=set[int])
    _channels: dict[int, Stream] = field(default_factory=dict[int, Stream])
    _sessions: dict[int, ToolSession] = field(default_factory=dict[int, ToolSession])
    _stopped: set[int] = field(default_factory=set[int])

    def feed(self, direction: Direction, namespace: str, text: str | bytes) -> None:
        """Check one frame.

        Raises:
            StrictError: If its side must not send this.
        """
        findings = list(self._check(namespace, text) if direction == "client" else self._check_server(text))
        if findings:
            raise StrictError(f"on /{namespace}: {'; '.join(findings)}; the frame was {_shown(text)}")

    def _check_server(self, text: str | bytes) -> Iterator[str]:
        try:
            frame = json.loads(text)
        except ValueError:
            return
        if not isinstance(frame, dict):
            return
        if frame.get("success") is True:
            self._authenticated = True
        channel_id = frame.get("channelId")
        channel = self._channels.get(channel_id) if is_integer(channel_id) else None
        if channel is None or channel.reply is None:
            return
        try:
            _read(text)
        except ValueError as error:
            yield f"no JSON: {error}"
        if frame.get("type") == "channelError":
            yield from ERROR.check(frame.get("error"), "error")
        elif frame.get("type") == "channelSend":
            packet: Any = frame.get("message")
            findings = list(channel.reply.check(packet, "message"))
            if channel_id in self._sessions and not findings:
                findings = list(self._sessions[channel_id].check_server(packet))
            yield from findings

    def _check(self, namespace: str, text: str | bytes) -> Iterator[str]:
        try:
            frame = _read(text)
        except (ValueError, RecursionError) as error:
            yield f"no JSON: {error}"
            return
        if not isinstance(frame, dict):
            yield "a frame must be an object"
        elif not self._introduced:
            yield from self._check_first_frame(frame)
        elif not self._authenticated:
            yield "nothing may be sent between the first frame and the server's reply to it"
        else:
            findings = list(Tagged("type", FRAMES).check(frame, "the frame"))
            yield from findings or _CHECKS[frame["type"]](self, namespace, frame)

    def _check_first_frame(self, frame: dict[str, Any]) -> Iterator[str]:
        self._introduced = True
        yield from AUTHENTICATION.check(frame, "the first frame")

    def _check_call(self, namespace: str, frame: dict[str, Any]) -> Iterator[str]:
        if frame["callId"] in self._calls:
            yield f"the call id {frame['callId']} was used before"
        self._calls.add(frame["callId"])
        endpoint = ENDPOINTS[namespace].get(frame["endpoint"])
        if not isinstance(endpoint, Call):
            yield f"there is no RPC {frame['endpoint']!r}"
        elif not endpoint.is_optional or "parameter" in frame:
            yield from _check_parameter(endpoint.parameter, frame, "parameter")

    def _check_create(self, namespace: str, frame: dict[str, Any]) -> Iterator[str]:
        if frame["channelId"] in self._channels:
            yield f"the channel id {frame['channelId']} was used before"
        endpoint = ENDPOINTS[namespace].get(frame["endpoint"])
        if not isinstance(endpoint, Stream):
            yield f"there is no channel {frame['endpoint']!r}"
            return
        self._channels[frame["channelId"]] = endpoint
        if frame["endpoint"] == "startToolUseSession":
            self._sessions[frame["channelId"]] = ToolSession()
        yield from _check_parameter(endpoint.parameter, frame, "creationParameter")

    def _check_send(self, _namespace: str, frame: dict[str, Any]) -> Iterator[str]:
        channel_id, packet = frame["channelId"], frame["message"]
        channel = self._channels.get(channel_id)
        if channel is None:
            yield f"the channel {channel_id} was never opened"
        elif channel.message is None:
            yield "a client must not send on this channel"
        else:
            if channel_id in self._stopped:
                yield f"the channel {channel_id} was cancelled before"
            findings = list(channel.message.check(packet, "message"))
            if channel_id in self._sessions and not findings:
                findings = list(self._sessions[channel_id].check_client(packet))
            yield from findings
            if packet.get("type") in LAST_OF_CLIENT:
                self._stopped.add(channel_id)

    def _check_warning(self, _namespace: str, _frame: dict[str, Any]) -> Iterator[str]:
        self._warnings += 1
        if self._warnings > MAX_WARNINGS:
            yield f"a side sends {MAX_WARNINGS} warnings at most"

    def _pass(self, _namespace: str, _frame: dict[str, Any]) -> Iterator[str]:
        yield from ()


_CHECKS: dict[str, Callable[[StrictListener, str, dict[str, Any]], Iterator[str]]] = {
    "rpcCall": StrictListener._check_call,
    "channelCreate": StrictListener._check_create,
    "channelSend": StrictListener._check_send,
    "communicationWarning": StrictListener._check_warning,
    "channelAck": StrictListener._pass,
    "keepAlive": StrictListener._pass,
}


def _check_parameter(shape: Shape | None, frame: dict[str, Any], name: str) -> Iterator[str]:
    if shape is None:
        if name in frame:
            yield f"{frame['endpoint']} takes nothing, so {name!r} must be absent"
    elif name not in frame:
        yield f"{frame['endpoint']} needs {name!r}"
    else:
        yield from shape.check(frame[name], name)


def _read(text: str | bytes) -> object:
    """Read JSON more strictly than Python does: no constants, no key twice."""
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_reject_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError(f"a key stands twice in {[name for name, _ in pairs]}")
    return dict(pairs)


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _shown(text: str | bytes) -> str:
    shown = text if isinstance(text, str) else text.decode(errors="replace")
    return shown if len(shown) <= 2000 else f"{shown[:2000]}…"
