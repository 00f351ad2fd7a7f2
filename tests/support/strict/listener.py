"""Checks the frames on one socket against the official SDK: all of the client, and those of plugins of the server."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.strict.shapes import ABSENT, ADD_SCHEMA, Schema, endpoints_of, schema_of, wrong_settings, wrong_with

Direction = Literal["client", "server"]
MAX_WARNINGS = 5
CREDENTIALS = {"authVersion", "clientIdentifier", "clientPasskey"}
LAST_OF_CLIENT = {"cancel", "stop", "cancelPlan", "cancelDownload", "discardSession"}
"""Types of packets after which a client sends nothing more on the channel."""

OLDER = {"createArtifactDownloadPlan"}
"""Endpoints of older servers, which this SDK no longer has."""


class StrictError(AssertionError):
    """A frame that its side must not send."""


@dataclass
class ToolSession:
    """What has happened in a tool session. Both sides' packets come in the order in which the server sees them."""

    _ready: bool = False
    _calls: int = 0
    _ended: set[int] = field(default_factory=set[int])
    _aborted: set[int] = field(default_factory=set[int])

    def check_client(self, packet: dict[str, Any]) -> Iterator[str]:
        """Check a packet of the client, whose shape is right."""
        call = packet.get("callId", 0)
        if packet["type"] == "callTool":
            if not self._ready:
                yield "a tool must not be called before sessionReady"
            if call != self._calls:
                yield f"the next tool call has the callId {self._calls}, not {call}"
            self._calls = max(self._calls, call + 1)
        elif packet["type"] == "abortToolCall":
            if call >= self._calls or call in self._aborted:
                yield f"the tool call {call} was never made, or was aborted before"
            self._aborted.add(call)

    def check_server(self, packet: dict[str, Any]) -> Iterator[str]:
        """Check a packet of the server, whose shape is right."""
        if self._ready == (packet["type"] == "sessionReady"):
            yield "sessionReady must come first, and once"
        self._ready = True
        call = packet.get("callId")
        if call is None:
            return
        if call >= self._calls:
            yield f"the tool call {call} was never made"
        if call in self._aborted:
            yield f"the tool call {call} was aborted, so nothing of it may follow"
        if call in self._ended:
            yield f"the tool call {call} has ended before"
        if packet["type"] in {"toolCallComplete", "toolCallError"}:
            self._ended.add(call)


@dataclass
class StrictListener:
    """Receives the frames of both sides of one socket, in the order in which the server sees them."""

    _introduced: bool = False
    _authenticated: bool = False
    _warnings: int = 0
    _calls: set[int] = field(default_factory=set[int])
    _channels: dict[int, Schema] = field(default_factory=dict[int, Schema])
    _sessions: dict[int, ToolSession] = field(default_factory=dict[int, ToolSession])
    _stopped: set[int] = field(default_factory=set[int])

    def feed(self, direction: Direction, namespace: str, text: str | bytes) -> None:
        """Check one frame.

        Raises:
            StrictError: If its side must not send this.
        """
        check = self._check_client if direction == "client" else self._check_server
        findings = list(check(namespace, text))
        if findings:
            found = f"on /{namespace}: {'; '.join(findings)}"
            if found.endswith(ADD_SCHEMA):  # whoever adds a setting need not see each frame that has it
                raise StrictError(found)
            shown = text if isinstance(text, str) else text.decode(errors="replace")
            raise StrictError(f"{found}; the frame was {shown[:2000]}")

    def _check_server(self, namespace: str, text: str | bytes) -> Iterator[str]:
        try:
            frame = json.loads(text)
        except ValueError:
            return  # a server that a test damages
        if not isinstance(frame, dict):
            return
        if frame.get("success") is True:
            self._authenticated = True
        channel_id = frame.get("channelId")
        if namespace != "plugins" or not isinstance(channel_id, int) or channel_id not in self._channels:
            return
        if frame.get("type") == "channelError":
            yield from wrong_with(frame.get("error"), schema_of("frames", "error"), "error")
        elif frame.get("type") == "channelSend":
            yield from self._wrong_packet(channel_id, frame.get("message"), "server")

    def _check_client(self, namespace: str, text: str | bytes) -> Iterator[str]:
        try:
            frame = json.loads(text, object_pairs_hook=_unique, parse_constant=_reject_constant)
        except (ValueError, RecursionError) as error:
            yield f"no JSON: {error}"
            return
        if not self._introduced:
            self._introduced = True
            if frame.keys() != CREDENTIALS or frame["authVersion"] != 1:
                yield f"the first frame must have authVersion 1 and credentials only, is {frame}"
        elif not self._authenticated:
            yield "nothing may be sent between the first frame and the server's reply to it"
        else:
            yield from [*wrong_with(frame, schema_of("frames", "client"), "the frame")] or self._check(namespace, frame)

    def _check(self, namespace: str, frame: dict[str, Any]) -> Iterator[str]:
        match frame["type"]:
            case "rpcCall":
                yield from self._check_call(namespace, frame)
            case "channelCreate":
                yield from self._check_create(namespace, frame)
            case "channelSend":
                yield from self._check_send(frame)
            case "communicationWarning":
                self._warnings += 1
                if self._warnings > MAX_WARNINGS:
                    yield f"a side sends {MAX_WARNINGS} warnings at most"

    def _check_call(self, namespace: str, frame: dict[str, Any]) -> Iterator[str]:
        if frame["callId"] in self._calls:
            yield f"the call id {frame['callId']} was used before"
        self._calls.add(frame["callId"])
        yield from _wrong_request(namespace, frame, "RPC", "parameter")

    def _check_create(self, namespace: str, frame: dict[str, Any]) -> Iterator[str]:
        if frame["channelId"] in self._channels:
            yield f"the channel id {frame['channelId']} was used before"
        self._channels[frame["channelId"]] = endpoints_of(namespace).get(frame["endpoint"], {})
        if frame["endpoint"] == "startToolUseSession":
            self._sessions[frame["channelId"]] = ToolSession()
        yield from _wrong_request(namespace, frame, "channel", "creationParameter")

    def _check_send(self, frame: dict[str, Any]) -> Iterator[str]:
        channel_id, packet = frame["channelId"], frame.get("message")
        if channel_id not in self._channels:
            yield f"the channel {channel_id} was never opened"
            return
        if channel_id in self._stopped:
            yield f"the channel {channel_id} was cancelled before"
        yield from self._wrong_packet(channel_id, packet, "client")
        if isinstance(packet, dict) and packet.get("type") in LAST_OF_CLIENT:
            self._stopped.add(channel_id)

    def _wrong_packet(self, channel_id: int, packet: Any, direction: Direction) -> Iterator[str]:
        findings = [*wrong_with(packet, self._channels[channel_id].get(direction, {}), "message")]
        session = self._sessions.get(channel_id)
        if session and not findings:
            findings = [*(session.check_client if direction == "client" else session.check_server)(packet)]
        yield from findings


def _wrong_request(namespace: str, frame: dict[str, Any], kind: str, member: str) -> Iterator[str]:
    endpoint = endpoints_of(namespace).get(frame["endpoint"], {})
    if frame["endpoint"] in OLDER:
        return
    if member not in endpoint:
        yield f"there is no {kind} {frame['endpoint']!r}"
    elif member in frame:
        findings = [*wrong_with(frame[member], endpoint[member], member)]
        yield from findings or wrong_settings(namespace, frame[member], member)
    elif endpoint[member] != ABSENT and member in schema_of(namespace, frame["endpoint"])["required"]:
        yield f"{frame['endpoint']} needs {member!r}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError(f"a key stands twice in {[name for name, _ in pairs]}")
    return dict(pairs)


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
