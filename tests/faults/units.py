"""What passes through the proxy, unit by unit: heads of HTTP, frames of WebSocket, and what each of them means."""

import json
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Literal

from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

Sender = Literal["client", "server"]

TEXTS = 3
"""How many texts each call of an embedding surface embeds; their results are its first, middle and last packet."""

_MIDDLE = 3
"""Which fragment of a prediction is its middle packet."""

_LOADS = {"getOrLoad", "loadModel"}
_PREDICTIONS = {"predict", "completeRawText"}
_OF_TOOLS = {"startToolUseSession", "sessionReady", "callTool", "toolCallStatus", "toolCallComplete"}


@dataclass(frozen=True, slots=True)
class Unit:
    """What is forwarded, or not, as a whole.

    Attributes:
        sender: Where it comes from.
        data: The bytes.
        labels: Which points of the conversation it is.
        frame: The frame, if it is one.
    """

    sender: Sender
    data: bytes
    labels: frozenset[str] = frozenset()
    frame: Frame | None = None

    @property
    def message(self) -> dict[str, Any]:
        """The frame's JSON object."""
        assert self.frame is not None, "only frames carry messages"
        message: dict[str, Any] = json.loads(bytes(self.frame.data))
        return message


def serialized(sender: Sender, frame: Frame) -> bytes:
    """Return the bytes of a frame; clients mask theirs."""
    return frame.serialize(mask=sender == "client")


def text_frame(sender: Sender, text: str | bytes) -> bytes:
    """Return the bytes of a text frame."""
    return serialized(sender, Frame(Opcode.TEXT, text if isinstance(text, bytes) else text.encode()))


@dataclass(slots=True)
class Conversation:
    """How far the conversation on one socket is; names the points of it.

    The points of the client: `credentials`, `load request`, `request`. Of the server: `authentication`, `load packet`,
    `load result`, `first packet`, `middle packet`, `last packet`, `end`. Of tool sessions: the types of their packets,
    and `startToolUseSession`.
    """

    _endpoints: dict[tuple[str, int], str] = field(default_factory=dict[tuple[str, int], str])
    _packets: dict[int, int] = field(default_factory=dict[int, int])
    _fragments: dict[int, int] = field(default_factory=dict[int, int])
    _vectors: int = 0

    def labels(self, sender: Sender, text: bytes) -> frozenset[str]:
        """Return which points a frame is; none, if it is not one of the protocol's."""
        try:
            message = json.loads(text)
            return frozenset(self._of_client(message) if sender == "client" else self._of_server(message))
        except (ValueError, LookupError, TypeError):
            return frozenset()

    def _of_client(self, message: dict[str, Any]) -> set[str]:
        if "authVersion" in message:
            return {"credentials"}
        if message["type"] == "channelSend":
            return {message["message"]["type"]} & _OF_TOOLS
        if message["type"] not in {"channelCreate", "rpcCall"}:
            return set()
        name = "channelId" if message["type"] == "channelCreate" else "callId"
        endpoint = self._endpoints[name, message[name]] = message["endpoint"]
        if endpoint in _LOADS:
            return {"load request"}
        if endpoint in _OF_TOOLS:
            return {endpoint}
        return {"request"} if endpoint in _PREDICTIONS or endpoint == "embedString" else set()

    def _of_server(self, message: dict[str, Any]) -> set[str]:
        if "success" in message:
            return {"authentication"}
        number = message.get("channelId")
        if number is not None:
            return self._of_channel(number, self._endpoints["channelId", number], message)
        if self._endpoints.get(("callId", message.get("callId", 0))) == "embedString":
            self._vectors += 1
            return {("last packet", "first packet", "middle packet")[self._vectors % TEXTS]}
        return set()

    def _of_channel(self, number: int, endpoint: str, message: dict[str, Any]) -> set[str]:
        if message["type"] != "channelSend":
            return {"end"} if endpoint in _PREDICTIONS else set()
        packet: str = message["message"]["type"]
        if packet in _OF_TOOLS:
            return {packet}
        if endpoint in _LOADS:
            return {"load result"} if packet in {"loadSuccess", "alreadyLoaded", "success"} else {"load packet"}
        self._packets[number] = self._packets.get(number, 0) + 1
        labels = {"first packet"} if self._packets[number] == 1 else set[str]()
        if packet == "fragment":
            self._fragments[number] = self._fragments.get(number, 0) + 1
            labels |= {"middle packet"} if self._fragments[number] == _MIDDLE else set()
        return labels | ({"last packet"} if packet == "success" else set())


class FrameReader:
    """Cuts the bytes of one side into frames."""

    def __init__(self, sender: Sender) -> None:
        self._sender: Sender = sender
        self._stream = StreamReader()
        self._frames: list[Frame] = []
        self._parser = self._parse()
        next(self._parser)

    def feed(self, data: bytes, conversation: Conversation) -> list[Unit]:
        """Receive bytes; return the frames that are complete."""
        self._stream.feed_data(data)
        next(self._parser)
        frames, self._frames = self._frames, []
        return [self._unit(frame, conversation) for frame in frames]

    def _unit(self, frame: Frame, conversation: Conversation) -> Unit:
        labels = (
            conversation.labels(self._sender, bytes(frame.data)) if frame.opcode is Opcode.TEXT else frozenset[str]()
        )
        return Unit(self._sender, serialized(self._sender, frame), labels, frame)

    def _parse(self) -> Generator[None]:
        while True:
            frame = yield from Frame.parse(self._stream.read_exact, mask=self._sender == "client")
            self._frames.append(frame)
