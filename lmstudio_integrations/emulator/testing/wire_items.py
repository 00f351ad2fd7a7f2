"""What passes through the proxy, item by item: heads of HTTP, frames of WebSocket, and what each of them means."""

import json
import logging
import re
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from lmstudio_integrations._support.text import beginning, counted
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.testing.cassette import ABSENT, Interaction, Request
from lmstudio_integrations.emulator.testing.redaction import Redaction
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
    is_stalled: bool = False
    is_cancelled: bool = False


class WireTracker:
    """Tracks how far the conversation on one socket is, and names the injection points of it.

    The points of any request are its endpoint and one of `request`, `first packet`, `middle packet`, `last packet` and
    `end`: `countTokens request`, for example. A call with one response has all its packets in it. Predictions and
    embeddings have these points without the name of an endpoint as well, and loads after `load`. Of texts that are
    embedded at once, the first, the last and the other vectors are such packets. Of a prediction, the middle packet is
    one fragment; of anything else, each packet before the last.

    The type of each packet is a point, such as `cancel`; `credentials` and `authentication` are the others. `stalled`
    is all that the server sends after a stall.
    """

    def __init__(self) -> None:
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

    def stall(self, channel: int) -> None:
        """Let the server send nothing more on a channel, but the progress of its prompt, until it is cancelled."""
        if channel in self._channels:
            self._channels[channel].is_stalled = True

    def is_stalled(self, channel: int) -> bool:
        """Whether a channel has stalled and has not been cancelled."""
        return channel in self._channels and self._channels[channel].is_stalled

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
                if request.is_stalled:
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
        if request.is_stalled and message.get("message", {}).get("type") != PROGRESS:
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


logger: logging.Logger = logging.getLogger(__name__)

USED_ONCE = {"predict", "completeRawText", "generateWithGenerator"}
"""Requests whose recorded response is used once: the same prompt may get another response each time. For any other, the
last response counts for all further requests."""

_NEUTRAL = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?(?!\d)"), "<time>"),
    (re.compile(r"(?:/private)?(?:/tmp|/var/folders|/var/tmp)/[^\s\"'<>|:*?,;)\]}]+"), "<path>"),
    (re.compile(r"(?:~|[A-Za-z]:)?[\\/]\S{0,120}?[\\/]Temp[\\/][^\s\"'<>|:*?,;)\]}]+", re.IGNORECASE), "<path>"),
)
"""What differs from run to run in texts, and what stands for it."""

MAX_LISTED = 8
"""Differences that are shown; of more, only their number."""

_AROUND = 24
"""Characters that are shown before and after the place where two texts differ."""

_LONGEST = 200
"""Characters of a text that is shown whole."""

_MISSING: Any = object()


class Matcher:
    """Finds recorded requests. Belongs to the event loop of its server.

    Args:
        interactions: The recording.
        redaction: Removes secrets from new requests, as it did from the recorded ones.
    """

    def __init__(self, interactions: Iterable[Interaction], redaction: Redaction) -> None:
        self.unmatched: list[str] = []
        """Why requests were not found, one text for each."""
        self._redaction = redaction
        self._used: set[Interaction] = set()
        self._recorded: defaultdict[str, list[Interaction]] = defaultdict(list)
        for each in interactions:
            for form in self._forms(each.request):
                self._recorded[form].append(each)

    def find(self, request: Request) -> Interaction | None:
        """Return the recorded request that this one equals: in the first place exactly, in the second once normalized.

        Equal requests are found in their order. `None` if nothing is found, or nothing that is not used up.
        """
        for form in self._forms(request):
            matches = self._recorded.get(form, [])
            unused = next((each for each in matches if each not in self._used), None)
            if unused is not None:
                self._used.add(unused)
                return unused
            if matches and request.endpoint not in USED_ONCE:
                return matches[-1]
        return None

    def explain(self, request: Request) -> WireError:
        """Return the error for a request that is not in the recording, with the difference to the nearest one."""
        *_, form = self._forms(request)
        if form in self._recorded:
            used = counted(len(self._recorded[form]), "time")
            cause = f"It was recorded {used}, and each recorded response is used once."
        else:
            cause = self._nearest(request)
        self.unmatched.append(f"{request}: {cause}")
        logger.warning("not in the cassette: %s", self.unmatched[-1])
        return WireError(
            f"The cassette has no such request ({request})",
            cause=cause,
            suggestion="Record the cassette again if the program has changed on purpose.",
        )

    def _nearest(self, request: Request) -> str:
        recorded = {each for group in self._recorded.values() for each in group}
        others = [each for each in recorded if str(each.request) == str(request)]
        if not others:
            names = ", ".join(sorted({str(each.request) for each in recorded}))
            return f"It has requests of {names or 'no endpoint'} only."
        sent = _normalize(self._plain(request), {})
        lines = {each: list(_compare(_normalize(self._plain(each.request), {}), sent)) for each in others}
        nearest = min(others, key=lambda each: (len(lines[each]), each.number))
        listed = lines[nearest][:MAX_LISTED]
        if len(lines[nearest]) > MAX_LISTED:
            listed.append(f"and {counted(len(lines[nearest]) - MAX_LISTED, 'further difference')}")
        return "\n  ".join([f"The nearest is request {nearest.number}:", *listed])

    def _forms(self, request: Request) -> tuple[str, str]:
        """Return a request as text, as it is and normalized."""
        plain = self._plain(request)
        forms = (json.dumps(each, sort_keys=True) for each in (plain, _normalize(plain, {})))
        exact, normalized = (f"{request} {form}" for form in forms)
        return exact, normalized

    def _plain(self, request: Request) -> Any:
        """Return a parameter without secrets; void and null are the same."""
        return self._redaction.value(None if request.parameter is ABSENT else request.parameter)


def _normalize(value: Any, numbers: dict[Any, str], *, is_identifier: bool = False) -> Any:
    """Return JSON without what is new in each run."""
    if is_list(value) and value and all(is_object(each) and each.keys() == {"key", "value"} for each in value):
        value = {str(each["key"]): each["value"] for each in value}  # settings
    if is_list(value):
        return [_normalize(each, numbers) for each in value]
    if is_object(value):
        identifiers = {"toolCallId", "id"} if "arguments" in value else {"toolCallId"}
        return {
            name: _normalize(each, numbers, is_identifier=name in identifiers and each is not None)
            for name, each in value.items()
        }
    if is_identifier:
        return numbers.setdefault(value, f"call {len(numbers) + 1}")
    if isinstance(value, str):
        for pattern, by in _NEUTRAL:
            value = pattern.sub(by, value)
    return value


def _compare(recorded: Any, sent: Any, place: str = "parameter") -> Iterator[str]:
    """Return a line for each place where two requests differ, for people."""
    if recorded == sent:
        return
    if is_object(recorded) and is_object(sent):
        for name in [*recorded, *(name for name in sent if name not in recorded)]:
            below = name if place == "parameter" else f"{place}.{name}"
            yield from _compare(recorded.get(name, _MISSING), sent.get(name, _MISSING), below)
    elif is_list(recorded) and is_list(sent):
        for index in range(max(len(recorded), len(sent))):
            one, other = (each[index] if index < len(each) else _MISSING for each in (recorded, sent))
            roles = [f" ({each['role']})" for each in (one, other) if is_object(each) and "role" in each]
            yield from _compare(one, other, f"{place}[{index}]{(roles or [''])[0]}")
    elif isinstance(recorded, str) and isinstance(sent, str):
        shorter = min(len(recorded), len(sent))
        at = next((index for index in range(shorter) if recorded[index] != sent[index]), shorter)
        where = f", from character {at}" if at else ""
        yield f"{place}{where}: recorded {_excerpt(recorded, at)}, sent {_excerpt(sent, at)}"
    else:
        yield f"{place}: recorded {_format(recorded)}, sent {_format(sent)}"


def _excerpt(text: str, at: int) -> str:
    start, end = max(at - _AROUND, 0), at + _AROUND
    return f"{'…' if start else ''}{_quote(text[start:end])}{'…' if end < len(text) else ''}"


def _format(value: Any) -> str:
    if value is _MISSING:
        return "nothing"
    text = _quote(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _quote(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
