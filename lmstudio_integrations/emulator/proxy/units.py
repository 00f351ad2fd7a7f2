"""What passes through the proxy, unit by unit: heads of HTTP, frames of WebSocket, and what each of them means."""

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from lmstudio_integrations._support.typeguards import is_object

Sender: TypeAlias = Literal["client", "server"]

LOADS = frozenset({"getOrLoad", "loadModel"})
PREDICTIONS = frozenset({"predict", "completeRawText"})
EMBEDDING = "embedString"

_MIDDLE = 3
"""Which fragment of a prediction is its middle packet."""

_OF_TOOLS = {"startToolUseSession", "sessionReady", "callTool", "toolCallStatus", "toolCallComplete"}
_LOADED = {"loadSuccess", "alreadyLoaded", "success"}


@dataclass(frozen=True, slots=True)
class Unit:
    """What is forwarded, or not, as a whole.

    Attributes:
        sender: Where it comes from.
        data: The bytes.
        labels: Which points of the conversation it is.
        frame: The frame, if it is one.
        message: The frame's JSON object; empty if it has none.
        endpoint: The endpoint of the request that it belongs to; empty if it belongs to none.
    """

    sender: Sender
    data: bytes
    labels: frozenset[str] = frozenset()
    frame: Frame | None = None
    message: dict[str, Any] = field(default_factory=dict[str, Any])
    endpoint: str = ""


def serialized(sender: Sender, frame: Frame) -> bytes:
    """Return the bytes of a frame; clients mask theirs."""
    return frame.serialize(mask=sender == "client")


def text_frame(sender: Sender, text: str | bytes) -> bytes:
    """Return the bytes of a text frame."""
    return serialized(sender, Frame(Opcode.TEXT, text if isinstance(text, bytes) else text.encode()))


@dataclass(slots=True)
class _Request:
    endpoint: str
    packets: int = 0
    fragments: int = 0


class Conversation:
    """How far the conversation on one socket is; names the points of it.

    The points of the client: `credentials`, `load request`, `request`. Of the server: `authentication`, `load packet`,
    `load result`, `first packet`, `middle packet`, `last packet`, `end`. Of texts that are embedded at once, the first,
    the last and the other vectors are such packets. Of tool sessions: the types of their packets, and
    `startToolUseSession`.
    """

    def __init__(self) -> None:
        self._calls: dict[int, _Request] = {}
        self._channels: dict[int, _Request] = {}
        self._vectors_due = 0
        self._vectors_sent = 0

    def name(self, sender: Sender, message: Mapping[str, Any]) -> tuple[frozenset[str], str]:
        """Return which points a message is, and the endpoint that it belongs to; nothing for any other message."""
        try:
            labels, endpoint = self._of_client(message) if sender == "client" else self._of_server(message)
        except (LookupError, TypeError):
            return frozenset(), ""
        return frozenset(labels), endpoint

    def _of_client(self, message: Mapping[str, Any]) -> tuple[set[str], str]:
        if "authVersion" in message:
            return {"credentials"}, ""
        if message["type"] == "channelSend":
            return {message["message"]["type"]} & _OF_TOOLS, self._channels[message["channelId"]].endpoint
        if message["type"] not in {"channelCreate", "rpcCall"}:
            return set(), ""
        endpoint: str = message["endpoint"]
        if message["type"] == "channelCreate":
            self._channels[message["channelId"]] = _Request(endpoint)
        else:
            self._calls[message["callId"]] = _Request(endpoint)
        if endpoint in LOADS:
            return {"load request"}, endpoint
        self._vectors_due += endpoint == EMBEDDING
        return ({"request"} if endpoint in PREDICTIONS or endpoint == EMBEDDING else {endpoint} & _OF_TOOLS), endpoint

    def _of_server(self, message: Mapping[str, Any]) -> tuple[set[str], str]:
        if "success" in message:
            return {"authentication"}, ""
        if "callId" in message:
            endpoint = self._calls.pop(message["callId"]).endpoint
            return (self._of_vector() if endpoint == EMBEDDING else set()), endpoint
        request = self._channels[message["channelId"]]
        if message["type"] != "channelSend":
            del self._channels[message["channelId"]]
            return ({"end"} if request.endpoint in PREDICTIONS else set()), request.endpoint
        return self._of_packet(message["message"]["type"], request), request.endpoint

    def _of_vector(self) -> set[str]:
        self._vectors_due -= 1
        self._vectors_sent += 1
        labels = {"first packet"} if self._vectors_sent == 1 else set[str]()
        if not self._vectors_due:
            self._vectors_sent = 0
            return labels | {"last packet"}
        return labels or {"middle packet"}

    def _of_packet(self, packet: str, request: _Request) -> set[str]:
        if packet in _OF_TOOLS:
            return {packet}
        if request.endpoint in LOADS:
            return {"load result"} if packet in _LOADED else {"load packet"}
        request.packets += 1
        labels = {"first packet"} if request.packets == 1 else set[str]()
        if packet == "fragment":
            request.fragments += 1
            labels |= {"middle packet"} if request.fragments == _MIDDLE else set()
        return labels | ({"last packet"} if packet == "success" else set())


class FrameReader:
    """Cuts the bytes of one side into frames; a message in several frames belongs to the last of them."""

    def __init__(self, sender: Sender, conversation: Conversation) -> None:
        self._sender: Sender = sender
        self._conversation = conversation
        self._stream = StreamReader()
        self._frames: list[Frame] = []
        self._parts = b""
        self._parser = self._parse()
        next(self._parser)

    def feed(self, data: bytes) -> list[Unit]:
        """Receive bytes; return the frames that are complete."""
        self._stream.feed_data(data)
        next(self._parser)
        frames, self._frames = self._frames, []
        return [self._unit(frame) for frame in frames]

    def _unit(self, frame: Frame) -> Unit:
        message = self._message(frame)
        labels, endpoint = self._conversation.name(self._sender, message)
        return Unit(self._sender, serialized(self._sender, frame), labels, frame, message, endpoint)

    def _message(self, frame: Frame) -> dict[str, Any]:
        if frame.opcode not in {Opcode.TEXT, Opcode.CONT}:
            return {}
        self._parts += bytes(frame.data)
        if not frame.fin:
            return {}
        text, self._parts = self._parts, b""
        try:
            message = json.loads(text)
        except ValueError:
            return {}
        return message if is_object(message) else {}

    def _parse(self) -> Generator[None]:
        while True:
            frame = yield from Frame.parse(self._stream.read_exact, mask=self._sender == "client")
            self._frames.append(frame)
