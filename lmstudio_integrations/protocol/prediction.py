"""Packets of a prediction to events, events to a result, and back to packets for the emulator.

See docs/protocol.md#predict-packets. Used by `session.py`, `endpoints.py` and the client's streams. The events are in
`types/results.py`.
Packets are read leniently: a malformed member that only describes a prediction is dropped, with a debug line, so that
no reader has to expect it. The prediction itself, text and tool calls, is read or rejected.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard, TypeVar

from lmstudio_integrations._support.typeguards import SAFE_INTEGER, is_count, is_list, is_number, is_object
from lmstudio_integrations.protocol.envelope import ensure_writable, sanitize, without_surrogates
from lmstudio_integrations.protocol.errors import error_object
from lmstudio_integrations.types.reasoning import Thought
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    LlmPredictionStats,
    PredictionEnd,
    PredictionEvent,
    PredictionResult,
    PromptProgress,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallEvent,
    ToolCallFailed,
    ToolCallName,
    ToolCallRecord,
    ToolCallStart,
)

logger: logging.Logger = logging.getLogger(__name__)

DefaultT = TypeVar("DefaultT")
Packet = Mapping[str, Any]
Check = Callable[[object], bool]


class LegacyPredictionError(Exception):
    """The in-band error packet of older servers; holds an error object (docs/protocol.md#predict-packets)."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(error)
        self.error = error


def _fragment(packet: Packet) -> LlmPredictionFragment:
    """Return a piece of the text or of the reasoning."""
    # This runs for every token: one type check for each member, and no call unless one is malformed.
    fragment = packet["fragment"]
    if type(fragment) is str:  # as LM Studio 0.3.5 sends them
        return LlmPredictionFragment(fragment)
    get = fragment.get
    content = fragment["content"]
    # Servers of 2025 send neither isStructural nor tokens (docs/protocol.md#fragments).
    count = get("tokensCount", 1)
    kind = get("reasoningType", "none")
    tokens = get("tokens")
    if type(content) is not str:
        raise TypeError(f"expected a string; got {type(content).__name__}")
    if type(count) is not int:
        count = _ignored("tokensCount", 1)
    if type(kind) is not str:  # unknown strings are kept (docs/protocol.md#one-client-for-all)
        kind = _ignored("reasoningType", "none")
    if tokens is not None:
        valid = is_list(tokens) and all(map(_is_token, tokens))
        tokens = [ensure_writable(token) for token in tokens] if valid else _ignored("tokens", None)
    return LlmPredictionFragment(
        content, count, get("containsDrafted") is True, kind, get("isStructural") is True, tokens
    )


def _is_token(value: object) -> bool:
    if not _is_candidate(value):
        return False
    candidates: object = value.get("candidates") or None
    return candidates is None or (is_list(candidates) and all(map(_is_candidate, candidates)))


def _is_candidate(value: object) -> TypeGuard[dict[str, Any]]:
    # The server writes the logarithm of 0 as null, because JSON has no infinity.
    return (
        is_object(value)
        and _is_string(value.get("text", ""))
        and _is_number_or_null(value.get("logProb"))
        and not isinstance(value.get("id"), dict | list)
    )


def _tool_call_end(packet: Packet) -> ToolCallEnd:
    request = packet["toolCallRequest"]
    # A parsed object, never JSON text; absent for a tool without parameters (docs/protocol.md#tool-call-requests).
    arguments = request.get("arguments")
    return ToolCallEnd(
        _string_or_none(request.get("id")),
        _string(request["name"]),
        None if arguments is None else sanitize(_object(arguments)),
        _string_or_none(packet.get("rawContent")),
    )


def _description(packet: Packet, name: str) -> dict[str, Any]:
    value = packet.get(name)
    if not is_object(value):
        return {} if name not in packet else _ignored(name, {})
    try:
        return ensure_writable(value)
    except TypeError:
        return _ignored(name, {})


def _object(value: object) -> dict[str, Any]:
    if not is_object(value):
        raise TypeError(f"expected an object; got {type(value).__name__}")
    return ensure_writable(value)


def _members(members: dict[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """Return the members without those of a wrong type."""
    for name in [name for name, check in checks.items() if name in members and not check(members[name])]:
        _ignored(name, None)
        members = {other: value for other, value in members.items() if other != name}
    return members


def _config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without those that have no key."""
    fields = config.get("fields", [])
    if not is_list(fields):
        return _ignored("fields", {})
    with_key = [field for field in fields if is_object(field) and type(field.get("key")) is str]
    return config if len(with_key) == len(fields) else {**config, "fields": _ignored("field", with_key)}


def _progress(packet: Packet) -> PromptProgress | None:
    progress, details = packet.get("progress"), packet.get("details")
    if not is_number(progress):
        return _ignored("progress", None)
    # Servers before January 2026 send no details (docs/protocol.md#predict-packets).
    if not is_object(details):
        return PromptProgress(progress)
    counts = {name: n for name, n in details.items() if type(n) is int and 0 <= n < SAFE_INTEGER}
    return PromptProgress(progress, counts)


def _ignored(name: str, default: DefaultT) -> DefaultT:
    logger.debug("ignored a malformed %s", name)
    return default


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a string; got {type(value).__name__}")
    return without_surrogates(value)


def _string_or_none(value: object) -> str | None:
    return _string(value) if isinstance(value, str) else None


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _is_number_or_null(value: object) -> bool:
    return value is None or is_number(value)


_CHECKS: dict[Any, Check] = {
    str: _is_string,
    str | None: lambda value: value is None or isinstance(value, str),
    int | None: lambda value: value is None or is_count(value),
    float | None: _is_number_or_null,
    int | float | None: _is_number_or_null,
    bool | None: lambda value: value is None or isinstance(value, bool),
    list[dict[str, Any]] | None: lambda value: value is None or (is_list(value) and all(map(is_object, value))),
    dict[str, str] | None: lambda value: value is None or is_object(value),
}
_STATS = {str(member.alias): _CHECKS[member.annotation] for member in LlmPredictionStats.model_fields.values()}
_MODEL_INFO: dict[str, Check] = {
    **dict.fromkeys(("type", "identifier", "modelKey", "displayName", "instanceReference", "path"), _is_string),
    "contextLength": is_count,
    "deviceIdentifier": _CHECKS[str | None],
    "quantization": lambda value: value is None or (is_object(value) and _is_string(value.get("name"))),
}
"""Members that are read from the dict itself, and their types. Others may be missing (docs/protocol.md#model-info)."""


def model_info(info: object) -> dict[str, Any]:
    """Return the info of a model, in wire form, without the members of a wrong type, because it is kept and compared.

    Raises:
        TypeError: If it is no object.
    """
    if not is_object(info):
        raise TypeError(f"expected an object; got {type(info).__name__}")
    return _members(info, _MODEL_INFO)


@dataclass(frozen=True, slots=True)
class _Packet:
    """How one packet is read and written.

    Attributes:
        name: Its type.
        event: The event.
        read: Makes the event of the packet; returns `None` if the packet says nothing.
        write: Makes the packet of the event, with every member that strict clients require.
    """

    name: str
    event: type[PredictionEvent]
    read: Callable[[Packet], PredictionEvent | None]
    write: Callable[[Any], dict[str, Any]]


_PACKETS = (
    # TypeScript silently drops progress without details, and fragments without isStructural
    # (docs/protocol.md#predict-packets, docs/protocol.md#fragments).
    _Packet(
        "promptProcessingProgress",
        PromptProgress,
        _progress,
        lambda event: _present(progress=event.progress, details=event.details),
    ),
    _Packet("fragment", LlmPredictionFragment, _fragment, lambda event: {"fragment": event.to_dict()}),
    # Packets of tool calls have no index: they belong to the most recent start (docs/protocol.md#predict-packets).
    _Packet(
        "toolCallGenerationStart",
        ToolCallStart,
        lambda packet: ToolCallStart(
            _string_or_none(packet.get("toolCallId")), _string_or_none(packet.get("argumentsFormat"))
        ),
        lambda event: _present(toolCallId=event.id, argumentsFormat=event.arguments_format),
    ),
    _Packet(
        "toolCallGenerationNameReceived",
        ToolCallName,
        lambda packet: ToolCallName(_string(packet["name"])),
        lambda event: {"name": event.name},
    ),
    _Packet(
        "toolCallGenerationArgumentFragmentGenerated",
        ToolCallArguments,
        lambda packet: ToolCallArguments(_string(packet["content"])),
        lambda event: {"content": event.content},
    ),
    _Packet(
        "toolCallGenerationEnd",
        ToolCallEnd,
        _tool_call_end,
        lambda event: _present(
            toolCallRequest=_present(type="function", id=event.id, name=event.name, arguments=event.arguments),
            rawContent=event.raw_content,
        ),
    ),
    _Packet(
        "toolCallGenerationFailed",
        ToolCallFailed,
        lambda packet: ToolCallFailed(
            _description({"error": error_object(packet.get("error"))}, "error"),
            _string_or_none(packet.get("rawContent")),
        ),
        lambda event: _present(error=dict(event.error), rawContent=event.raw_content),
    ),
    # Read: only stats is needed to end a prediction; servers of 2025 may omit the rest
    # (docs/protocol.md#client-versions). Written: all four are required, even where they are empty.
    _Packet(
        "success",
        PredictionEnd,
        lambda packet: PredictionEnd(
            _members(_object(packet["stats"]), _STATS),
            model_info(_description(packet, "modelInfo")),
            _config(_description(packet, "loadModelConfig")),
            _config(_description(packet, "predictionConfig")),
        ),
        lambda event: {
            "stats": event.stats,
            "modelInfo": event.model_info,
            "loadModelConfig": event.load_model_config,
            "predictionConfig": event.prediction_config,
        },
    ),
)
"""Every packet of a prediction that has an event. What the events are to their readers says their `kind`."""

_READERS = {packet.name: packet.read for packet in _PACKETS}
_WRITERS = {packet.event: packet for packet in _PACKETS}


def decode(packet: Packet) -> PredictionEvent | None:
    """Return the event of a packet; `None` for unknown types, and for progress that is not a number.

    Raises:
        LegacyPredictionError: For the in-band error packet of older servers.
        LookupError, TypeError, AttributeError: If the text or a tool call cannot be read.
    """
    if packet["type"] == "error":  # from older servers only
        raise LegacyPredictionError(error_object(packet.get("error")))
    read = _READERS.get(packet["type"])
    # Newer servers may add types of packets (docs/protocol.md#one-client-for-all).
    return None if read is None else read(packet)


def encode(event: PredictionEvent) -> dict[str, Any]:
    """Return the packet of an event, with every field that strict clients require."""
    packet = _WRITERS[type(event)]
    return {"type": packet.name, **packet.write(event)}


def _present(**members: Any) -> dict[str, Any]:
    """Return the members that have a value: optional ones are omitted, never null (docs/protocol.md#rule-omit-null)."""
    return {name: value for name, value in members.items() if value is not None}


@dataclass(slots=True)
class Accumulator:
    """Events of one prediction, of which `result` is made.

    Attributes:
        fragments: All fragments; `result` sorts them, once, into response, reasoning and markup.
        tool_calls: The tool calls, in order.
        open_call: The last tool call, until it ends or fails.
        cached_tokens: Tokens of the prompt that the server took from its cache; `None` if it did not report them.
        end: The last event.
    """

    fragments: list[LlmPredictionFragment] = field(default_factory=list[LlmPredictionFragment])
    tool_calls: list[ToolCallRecord] = field(default_factory=list[ToolCallRecord])
    open_call: ToolCallRecord | None = None
    cached_tokens: int | None = None
    end: PredictionEnd | None = None

    def add_all(self, events: Iterable[PredictionEvent]) -> None:
        """Record events, in order."""
        fragments = self.fragments
        for event in events:
            if type(event) is LlmPredictionFragment:
                fragments.append(event)
            else:
                self.add(event)

    def add(self, event: PredictionEvent) -> None:
        """Record an event."""
        match event.kind:
            case "call":
                self._add_to_calls(event)
            case "text":
                self.fragments.append(event)
            case "progress":
                if type(event) is PromptProgress and event.details and "cachedTokenCount" in event.details:
                    self.cached_tokens = event.details["cachedTokenCount"]
            case "end":  # pragma: no branch - pyright sees that there is no other
                self.end = event

    def _add_to_calls(self, event: ToolCallEvent) -> None:
        match event:
            case ToolCallArguments():  # the first, because most are
                if self.open_call is not None:
                    self.open_call.fragments.append(event.content)
            case ToolCallStart():
                # Calls come one after the other: if one is still open, the model gave it up.
                self.open_call = ToolCallRecord(event.id)
                self.tool_calls.append(self.open_call)
            case ToolCallName():
                if self.open_call is not None:
                    self.open_call.name = event.name
            case ToolCallEnd():
                self._end_call(event.id).end = event
            case ToolCallFailed():  # pragma: no branch - likewise
                self._end_call(None).failure = event

    def _end_call(self, call_id: str | None) -> ToolCallRecord:
        """Return the open call, or a new one if its start was not received."""
        call, self.open_call = self.open_call, None
        if call is None:
            call = ToolCallRecord(call_id)
            self.tool_calls.append(call)
        return call

    def result(self) -> PredictionResult:
        """Return the finished prediction."""
        assert self.end is not None, "a prediction ends with its statistics, or with an exception"
        response, reasoning, reasoning_tokens = list[str](), list[str](), 0
        tokens, response_tokens = list[dict[str, Any]](), list[dict[str, Any]]()
        for fragment in self.fragments:
            # Structural text and tags belong to neither, as in TypeScript (docs/protocol.md#respond-and-complete).
            if fragment.reasoning_type == "none":
                if fragment.is_structural:
                    continue
                response.append(fragment.content)
                response_tokens += fragment.tokens or ()
            else:
                # The tags count as tokens of the reasoning.
                reasoning_tokens += fragment.tokens_count if is_count(fragment.tokens_count) else 0
                if fragment.reasoning_type != "reasoning":
                    continue
                reasoning.append(fragment.content)
            tokens += fragment.tokens or ()
        content = "".join(response)
        return PredictionResult(
            content=content,
            reasoning_content="".join(reasoning),
            end=self.end,
            parsed=content,
            tool_call_requests=tuple([call.end.to_request() for call in self.tool_calls if call.end]),
            tool_calls=tuple(self.tool_calls),
            raw_content="".join([fragment.content for fragment in self.fragments]),
            tokens=tuple(tokens),
            response_tokens=tuple(response_tokens),
            cached_tokens=self.cached_tokens,
            reasoning_tokens=reasoning_tokens,
            thoughts=_thoughts(self.fragments),
        )


def _thoughts(fragments: Iterable[LlmPredictionFragment]) -> tuple[Thought, ...]:
    """Return the reasoning with its tags. White space after the end tag that is markup belongs to the tag."""
    thoughts, start_tag, is_open, written = list[_Thought](), "", False, 0
    for fragment in fragments:
        kind, content = fragment.reasoning_type, fragment.content
        if kind == "reasoning":
            if not is_open:
                thoughts.append(_Thought(start_tag, written))
            thoughts[-1].texts.append(content)
            start_tag, is_open = "", True
        elif kind == "reasoningStartTag":
            start_tag, is_open = content, False
        elif kind == "reasoningEndTag":
            if not is_open and (start_tag or not (thoughts or written)):  # an empty one, perhaps opened by the prompt
                thoughts.append(_Thought(start_tag, written))
                start_tag, is_open = "", True
            if is_open:
                thoughts[-1].end_tag = content
            is_open = False
        elif not fragment.is_structural:
            written, is_open = written + len(content), False
        elif thoughts and thoughts[-1].end_tag and thoughts[-1].at == written and content.isspace():
            thoughts[-1].end_tag += content
    return tuple([Thought("".join(each.texts), each.start_tag, each.end_tag, each.at) for each in thoughts])


@dataclass(slots=True)
class _Thought:
    """A thought that is being read; see `Thought`."""

    start_tag: str
    at: int
    end_tag: str = ""
    texts: list[str] = field(default_factory=list[str])
