"""What passes through the proxy, item by item: heads of HTTP, frames of WebSocket, and what each of them means."""

import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from lmstudio_integrations._support.bounded_cache import BoundedCache
from lmstudio_integrations._support.text import beginning
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.protocol.endpoints import LAST_PACKETS

Sender: TypeAlias = Literal["client", "server"]

LOADS = frozenset({"getOrLoad", "loadModel"})
PREDICTIONS = frozenset({"predict", "completeRawText"})
TEXTS = PREDICTIONS | {"generateWithGenerator"}
"""What responds with fragments of a text."""

HAS_ARRIVED = b"has arrived: "
"""What the ping that a replayed server sends after a response begins with; its pong says that."""

EMBEDDING = "embedString"

_COMPUTE = PREDICTIONS | {EMBEDDING}
PROGRESS = "promptProcessingProgress"

_MIDDLE = 3
"""Which fragment of a prediction is its middle packet."""

_MOST_REQUESTS = 10_000
"""Of how many open requests of a connection the points are known; some servers never answer what they do not know."""

_OF_TOOLS = {"startToolUseSession", "sessionReady", "callTool", "toolCallStatus", "toolCallComplete"}
_LOADED = {"loadSuccess", "alreadyLoaded", "success"}


@dataclass(frozen=True, slots=True)
class WireItem:
    """What is forwarded, or not, as a whole.

    Attributes:
        sender: Where it comes from.
        data: The bytes.
        points: Which injection points it is.
        frame: The frame, if it is one.
        message: The frame's JSON object; empty if it has none.
        endpoint: The endpoint of the request that it belongs to; empty if it belongs to none.
    """

    sender: Sender
    data: bytes
    points: frozenset[str] = frozenset()
    frame: Frame | None = None
    message: dict[str, Any] = field(default_factory=dict[str, Any])
    endpoint: str = ""


def serialize(sender: Sender, frame: Frame) -> bytes:
    """Return the bytes of a frame; clients mask theirs."""
    return frame.serialize(mask=sender == "client")


def text_frame(sender: Sender, text: str | bytes) -> bytes:
    return serialize(sender, Frame(Opcode.TEXT, text if isinstance(text, bytes) else text.encode()))


@dataclass(slots=True)
class _Request:
    """What was requested: the endpoint, and the parameter in wire form."""

    endpoint: str
    parameter: Any = None
    packets: int = 0
    fragments: int = 0
    is_stalled: bool = False
    is_cancelled: bool = False


class WireTracker:
    """Tracks how far the conversation on one socket is, and names the injection points of it.

    The points of the client: `credentials`, `load request`, `request`. Of the server: `authentication`, `load packet`,
    `load result`, `first packet`, `middle packet`, `last packet`, `end`. Of texts that are embedded at once, the first,
    the last and the other vectors are such packets. Of tool sessions: the types of their packets, and
    `startToolUseSession`.

    The same points of one endpoint alone, whichever it is, are its name and a point of a prediction:
    `countTokens request`, for example. A call with one response has all its packets in it.

    `cancel` is the packet of a client that cancels, and `stalled` all that the server sends after a stall.
    """

    def __init__(self) -> None:
        self._calls: BoundedCache[int, _Request] = BoundedCache(_MOST_REQUESTS)
        self._channels: BoundedCache[int, _Request] = BoundedCache(_MOST_REQUESTS)
        self._vectors_due = 0
        self._vectors_sent = 0

    @property
    def predictions(self) -> list[str]:
        """The predictions that have neither ended nor been cancelled, each named by its prompt."""
        return [
            _describe(request.parameter)
            for request in self._channels.values()
            if request.endpoint in PREDICTIONS and not request.is_cancelled
        ]

    def stall(self, channel: int) -> None:
        """Let the server send nothing more on a channel, but the progress of its prompt, until it is cancelled."""
        request = self._channels.get(channel)
        if request is not None:
            request.is_stalled = True

    def is_stalled(self, channel: int) -> bool:
        """Whether a channel has stalled and has not been cancelled."""
        request = self._channels.get(channel)
        return request is not None and request.is_stalled

    def forget(self, message: Mapping[str, Any]) -> None:
        """Forget a request that the server does not get."""
        if message.get("type") == "channelCreate":
            self._channels.pop(message["channelId"])
        elif message.get("type") == "rpcCall" and (request := self._calls.pop(message["callId"])):
            self._vectors_due -= request.endpoint == EMBEDDING

    def track(self, sender: Sender, message: Mapping[str, Any]) -> tuple[frozenset[str], str]:
        """Return which points a message is, and the endpoint that it belongs to; nothing for any other message."""
        try:
            points, endpoint = self._of_client(message) if sender == "client" else self._of_server(message)
            if not endpoint:
                return frozenset(points), ""
            prediction_points = points if endpoint in _COMPUTE else _prediction_points(sender, message)
            return frozenset(points | {f"{endpoint} {point}" for point in prediction_points}), endpoint
        except (LookupError, TypeError):
            return frozenset(), ""

    def _of_client(self, message: Mapping[str, Any]) -> tuple[set[str], str]:
        if "authVersion" in message:
            return {"credentials"}, ""
        if message["type"] == "channelSend":
            return self._of_packet_of_client(message)
        if message["type"] == "channelCreate":
            request = self._channels.put(
                message["channelId"], _Request(message["endpoint"], message.get("creationParameter"))
            )
        elif message["type"] == "rpcCall":
            request = self._calls.put(message["callId"], _Request(message["endpoint"]))
        else:
            return set(), ""
        endpoint = request.endpoint
        if endpoint in LOADS:
            return {"load request"}, endpoint
        self._vectors_due += endpoint == EMBEDDING
        return ({"request"} if endpoint in PREDICTIONS or endpoint == EMBEDDING else {endpoint} & _OF_TOOLS), endpoint

    def _of_packet_of_client(self, message: Mapping[str, Any]) -> tuple[set[str], str]:
        request = _require(self._channels.get(message["channelId"]))
        packet = message["message"]["type"]
        if packet != "cancel":
            return {packet} & _OF_TOOLS, request.endpoint
        request.is_cancelled = True
        if request.is_stalled:
            self._channels.pop(message["channelId"])
        return {"cancel"}, request.endpoint

    def _of_server(self, message: Mapping[str, Any]) -> tuple[set[str], str]:
        if "success" in message:
            return {"authentication"}, ""
        if "callId" in message:
            endpoint = _require(self._calls.pop(message["callId"])).endpoint
            return (self._of_vector() if endpoint == EMBEDDING else set()), endpoint
        request = _require(self._channels.get(message["channelId"]))
        if request.is_stalled and message.get("message", {}).get("type") != PROGRESS:
            return {"stalled"}, request.endpoint
        if message["type"] != "channelSend":
            self._channels.pop(message["channelId"])
            return ({"end"} if request.endpoint in PREDICTIONS else set()), request.endpoint
        return self._of_packet(message["message"]["type"], request), request.endpoint

    def _of_vector(self) -> set[str]:
        self._vectors_due -= 1
        self._vectors_sent += 1
        points = {"first packet"} if self._vectors_sent == 1 else set[str]()
        if not self._vectors_due:
            self._vectors_sent = 0
            return points | {"last packet"}
        return points or {"middle packet"}

    def _of_packet(self, packet: str, request: _Request) -> set[str]:
        if packet in _OF_TOOLS:
            return {packet}
        if request.endpoint in LOADS:
            return {"load result"} if packet in _LOADED else {"load packet"}
        request.packets += 1
        points = {"first packet"} if request.packets == 1 else set[str]()
        if packet == "fragment":
            request.fragments += 1
            points |= {"middle packet"} if request.fragments == _MIDDLE else set()
        return points | ({"last packet"} if packet == "success" else set())


def _require(request: _Request | None) -> _Request:
    """Return a request of the client.

    Raises:
        LookupError: If there is none: the server responds to what nobody has requested, or for the second time.
    """
    if request is None:
        raise LookupError("no such request")
    return request


def _prediction_points(sender: Sender, message: Mapping[str, Any]) -> set[str]:
    """Return which points of a prediction correspond to a message of another endpoint."""
    if sender == "client":
        return {"request"} if message["type"] in {"channelCreate", "rpcCall"} else set()
    if "callId" in message:
        return {"first packet", "middle packet", "last packet"}
    if is_last(message):
        return {"last packet"} if message["type"] == "channelSend" else {"end"}
    return {"first packet", "middle packet"}


def is_last(message: Mapping[str, Any]) -> bool:
    """Whether a message of a server is the last packet of a channel, or its end."""
    return message["type"] != "channelSend" or message["message"]["type"] in LAST_PACKETS


def _describe(parameter: Any) -> str:
    """Return what was requested, by the end of its prompt."""
    try:
        prompt = parameter.get("rawPrompt") or parameter["history"]["messages"][-1]["content"][-1]["text"]
    except (LookupError, TypeError, AttributeError):
        return "the prediction"
    return f"the prediction for {beginning(prompt)}"


class FrameReader:
    """Cuts the bytes of one side into frames; a message in several frames belongs to the last of them.

    Args:
        sender: Whose bytes they are.
        tracker: Names what the frames are.
        max_size: The largest frame, in bytes.
    """

    def __init__(self, sender: Sender, tracker: WireTracker, max_size: int | None = None) -> None:
        self._sender: Sender = sender
        self._tracker = tracker
        self._max_size = max_size
        self._stream = StreamReader()
        self._frames: list[Frame] = []
        self._parts = b""
        self._parser = self._parse()
        next(self._parser)

    def feed(self, data: bytes) -> Iterator[WireItem]:
        """Receive bytes; yield the frames that are complete. What each is depends on what happened to those before it.

        Raises:
            ProtocolError: If they are no frames.
            PayloadTooBig: If a frame is too large.
        """
        self._stream.feed_data(data)
        next(self._parser)
        frames, self._frames = self._frames, []
        yield from map(self._item, frames)

    def _item(self, frame: Frame) -> WireItem:
        message = self._message(frame)
        points, endpoint = self._tracker.track(self._sender, message)
        return WireItem(self._sender, serialize(self._sender, frame), points, frame, message, endpoint)

    def _message(self, frame: Frame) -> dict[str, Any]:
        if frame.opcode not in {Opcode.TEXT, Opcode.CONT}:
            return {}
        self._parts += bytes(frame.data)
        if not frame.fin:
            return {}
        text, self._parts = self._parts, b""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return {}
        return message if is_object(message) else {}

    def _parse(self) -> Generator[None]:
        while True:
            frame = yield from Frame.parse(
                self._stream.read_exact, mask=self._sender == "client", max_size=self._max_size
            )
            self._frames.append(frame)
