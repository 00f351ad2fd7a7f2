"""What passes through the proxy, item by item: heads of HTTP, frames of WebSocket, and what each of them means."""

import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from lmstudio_integrations._support.text import beginning
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.protocol.endpoints import LAST_PACKETS

Sender: TypeAlias = Literal["client", "server"]

LOADS = frozenset({"getOrLoad", "loadModel"})
PREDICTIONS = frozenset({"predict", "completeRawText"})
TEXTS = PREDICTIONS | {"generateWithGenerator"}
"""What responds with fragments of a text."""

EMBEDDING = "embedString"
PROGRESS = "promptProcessingProgress"

_PREFIXES = {**dict.fromkeys(PREDICTIONS | {EMBEDDING}, ""), **dict.fromkeys(LOADS, "load ")}
"""How the points of these begin, besides with the name of their endpoint."""

_ALL_PACKETS = {"first packet", "middle packet", "last packet"}

_MIDDLE = 3
"""Which fragment of a prediction is its middle packet."""


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
    is_cancelled: bool = False


class WireTracker:
    """Tracks how far the conversation on one socket is, and names the injection points of it.

    The points of any request are its endpoint and one of `request`, `first packet`, `middle packet`, `last packet` and
    `end`: `countTokens request`, for example. A call with one response has all its packets in it. Predictions and
    embeddings have these points without the name of an endpoint as well, and loads after `load`. Of texts that are
    embedded at once, the first, the last and the other vectors are such packets. Of a prediction, the middle packet is
    one fragment; of anything else, each packet before the last.

    The type of each packet is a point, such as `cancel`; `credentials` and `authentication` are the others. `stalled`
    is all that the server sends after a stall. Each message of the server is the point `message` as well.
    """

    def __init__(self) -> None:
        self.stalled: dict[int, bytes] = {}
        """Channels on which the server sends nothing more until they are cancelled, with the end that it then sends."""
        self._calls: dict[int, _Request] = {}
        self._channels: dict[int, _Request] = {}
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

    def stall(self, item: WireItem) -> None:
        """Let the server send nothing more on a channel, but the progress of its prompt, until it is cancelled."""
        end = item.data if is_last(item.message) else b""
        channel = item.message["channelId"]
        self.stalled[channel] = self.stalled.get(channel, b"") + end

    def forget(self, message: Mapping[str, Any]) -> None:
        """Forget a request that the server does not get."""
        if message.get("type") == "channelCreate":
            self._channels.pop(message["channelId"], None)
        elif message.get("type") == "rpcCall" and (request := self._calls.pop(message["callId"], None)):
            self._vectors_due -= request.endpoint == EMBEDDING

    def track(self, sender: Sender, message: Mapping[str, Any]) -> tuple[frozenset[str], str]:
        """Return which points a message is, and the endpoint that it belongs to; nothing for any other message."""
        try:
            points, endpoint = self._of_client(message) if sender == "client" else self._of_server(message)
            types = {message["message"]["type"]} if endpoint and message["type"] == "channelSend" else set[str]()
        except (LookupError, TypeError):  # it belongs to nothing that was requested
            return frozenset(), ""
        prefixes = {f"{endpoint} ", _PREFIXES.get(endpoint, f"{endpoint} ")} if endpoint else {""}
        return frozenset(types | {f"{prefix}{point}" for prefix in prefixes for point in points}), endpoint

    def _of_client(self, message: Mapping[str, Any]) -> tuple[set[str], str]:
        if "authVersion" in message:
            return {"credentials"}, ""
        if message["type"] == "channelSend":
            request = self._channels[message["channelId"]]
            if message["message"]["type"] == "cancel":
                request.is_cancelled = True
                if message["channelId"] in self.stalled:
                    del self._channels[message["channelId"]]
            return set(), request.endpoint
        if message["type"] == "channelCreate":
            request = _Request(message["endpoint"], message.get("creationParameter"))
            self._channels[message["channelId"]] = request
        elif message["type"] == "rpcCall":
            request = self._calls[message["callId"]] = _Request(message["endpoint"])
            self._vectors_due += request.endpoint == EMBEDDING
        else:
            return set(), ""
        return {"request"}, request.endpoint

    def _of_server(self, message: Mapping[str, Any]) -> tuple[set[str], str]:
        if "success" in message:
            return {"authentication"}, ""
        if "callId" in message:
            endpoint = self._calls.pop(message["callId"]).endpoint
            return self._of_vector() if endpoint == EMBEDDING else _ALL_PACKETS, endpoint
        request = self._channels[message["channelId"]]
        if message["channelId"] in self.stalled and message.get("message", {}).get("type") != PROGRESS:
            return {"stalled"}, ""
        if message["type"] != "channelSend":
            del self._channels[message["channelId"]]
            return {"end"}, request.endpoint
        return self._of_packet(message, request), request.endpoint

    def _of_vector(self) -> set[str]:
        self._vectors_due -= 1
        self._vectors_sent += 1
        points = {"first packet"} if self._vectors_sent == 1 else set[str]()
        if not self._vectors_due:
            self._vectors_sent = 0
            return points | {"last packet"}
        return points or {"middle packet"}

    def _of_packet(self, message: Mapping[str, Any], request: _Request) -> set[str]:
        is_fragment = message["message"]["type"] == "fragment"
        request.packets += 1
        request.fragments += is_fragment
        points = {"first packet"} if request.packets == 1 else set[str]()
        if is_last(message):
            points.add("last packet")
        elif request.endpoint not in PREDICTIONS or (is_fragment and request.fragments == _MIDDLE):
            points.add("middle packet")
        return points


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
    """

    def __init__(self, sender: Sender, tracker: WireTracker) -> None:
        self._sender: Sender = sender
        self._tracker = tracker
        self._stream = StreamReader()
        self._frames: list[Frame] = []
        self._parts = b""
        self._parser = self._parse()
        next(self._parser)

    def feed(self, data: bytes) -> Iterator[WireItem]:
        """Receive bytes; yield the frames that are complete. What each is depends on what happened to those before it.

        Raises:
            ProtocolError: If they are no frames.
        """
        self._stream.feed_data(data)
        next(self._parser)
        frames, self._frames = self._frames, []
        yield from map(self._item, frames)

    def _item(self, frame: Frame) -> WireItem:
        message = self._message(frame)
        points, endpoint = self._tracker.track(self._sender, message)
        if message and self._sender == "server":
            points |= {"message"}
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
            frame = yield from Frame.parse(self._stream.read_exact, mask=self._sender == "client")
            self._frames.append(frame)
