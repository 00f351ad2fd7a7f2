"""Packets of a prediction to events, events to a result, and back to packets for the emulator (protocol §4.3)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lmstudio_integrations._narrow import is_object
from lmstudio_integrations.protocol.errors import error_object
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PromptProgress,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)

Packet = Mapping[str, Any]


class LegacyPredictionError(Exception):
    """The in-band error packet of older servers; holds the error of protocol §3.7."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(error)
        self.error = error


def _fragment(packet: Packet) -> LlmPredictionFragment:
    fragment = packet["fragment"]
    get = fragment.get
    return LlmPredictionFragment(
        _text(fragment["content"]),
        get("tokensCount", 1),
        get("containsDrafted", False),
        get("reasoningType", "none"),
        get("isStructural", False),
        get("tokens"),
    )


def _tool_call_end(packet: Packet) -> ToolCallEnd:
    request = packet["toolCallRequest"]
    arguments = request.get("arguments")
    return ToolCallEnd(
        _text_or_none(request.get("id")),
        _text(request["name"]),
        None if arguments is None else _object(arguments),
        _text_or_none(packet.get("rawContent")),
    )


def _success(packet: Packet) -> PredictionEnd:
    empty: dict[str, Any] = {}
    return PredictionEnd(
        _object(packet["stats"]),
        _object(packet.get("modelInfo") or empty),
        _object(packet.get("loadModelConfig") or empty),
        _object(packet.get("predictionConfig") or empty),
    )


def _progress(packet: Packet) -> PromptProgress:
    progress, details = packet["progress"], packet.get("details")
    if not isinstance(progress, int | float):
        raise TypeError(f"no number: {progress!r}")
    return PromptProgress(progress, details if is_object(details) else None)


def _tool_call_failed(packet: Packet) -> ToolCallFailed:
    return ToolCallFailed(error_object(packet.get("error")), _text_or_none(packet.get("rawContent")))


def _legacy_error(packet: Packet) -> PredictionEvent:
    raise LegacyPredictionError(error_object(packet.get("error")))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"no text: {value!r}")
    return value


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _object(value: object) -> dict[str, Any]:
    if not is_object(value):
        raise TypeError(f"no object: {value!r}")
    return value


_EVENTS: dict[str, Callable[[Packet], PredictionEvent]] = {
    "fragment": _fragment,
    "promptProcessingProgress": _progress,
    "toolCallGenerationStart": lambda packet: ToolCallStart(_text_or_none(packet.get("toolCallId"))),
    "toolCallGenerationNameReceived": lambda packet: ToolCallName(_text(packet["name"])),
    "toolCallGenerationArgumentFragmentGenerated": lambda packet: ToolCallArguments(_text(packet["content"])),
    "toolCallGenerationEnd": _tool_call_end,
    "toolCallGenerationFailed": _tool_call_failed,
    "success": _success,
    "error": _legacy_error,
}


def decode(packet: Packet) -> PredictionEvent | None:
    """Return the event of a packet; `None` for kinds that are unknown here.

    Raises:
        LegacyPredictionError: For the in-band error packet of older servers.
        LookupError, TypeError, AttributeError: If a known packet lacks what makes it one.
    """
    event = _EVENTS.get(packet["type"])
    return None if event is None else event(packet)


_PACKETS: dict[type[Any], Callable[[Any], dict[str, Any]]] = {
    PromptProgress: lambda event: _present(
        type="promptProcessingProgress", progress=event.progress, details=event.details
    ),
    LlmPredictionFragment: lambda event: {
        "type": "fragment",
        "fragment": _present(
            content=event.content,
            tokensCount=event.tokens_count,
            containsDrafted=event.contains_drafted,
            reasoningType=event.reasoning_type,
            isStructural=event.is_structural,
            tokens=event.tokens,
        ),
    },
    ToolCallStart: lambda event: _present(type="toolCallGenerationStart", toolCallId=event.id),
    ToolCallName: lambda event: {"type": "toolCallGenerationNameReceived", "name": event.name},
    ToolCallArguments: lambda event: {
        "type": "toolCallGenerationArgumentFragmentGenerated",
        "content": event.content,
    },
    ToolCallEnd: lambda event: _present(
        type="toolCallGenerationEnd",
        toolCallRequest=_present(type="function", id=event.id, name=event.name, arguments=event.arguments),
        rawContent=event.raw_content,
    ),
    ToolCallFailed: lambda event: _present(
        type="toolCallGenerationFailed", error=dict(event.error), rawContent=event.raw_content
    ),
    PredictionEnd: lambda event: {
        "type": "success",
        "stats": event.stats,
        "modelInfo": event.model_info,
        "loadModelConfig": event.load_model_config,
        "predictionConfig": event.prediction_config,
    },
}


def encode(event: PredictionEvent) -> dict[str, Any]:
    """Return the packet of an event, with every field that strict clients require."""
    return _PACKETS[type(event)](event)


def _present(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


@dataclass(slots=True)
class Accumulator:
    """What has come of a prediction so far.

    `text` holds what is neither thought nor markup, `reasoning` the thoughts without their tags.
    """

    text: list[str] = field(default_factory=list[str])
    reasoning: list[str] = field(default_factory=list[str])
    tool_calls: list[ToolCallEnd] = field(default_factory=list[ToolCallEnd])
    failed_calls: list[ToolCallFailed] = field(default_factory=list[ToolCallFailed])
    end: PredictionEnd | None = None

    def add(self, event: PredictionEvent) -> None:
        """Take an event in."""
        if type(event) is LlmPredictionFragment:
            if event.reasoning_type == "none":
                if not event.is_structural:
                    self.text.append(event.content)
            elif event.reasoning_type == "reasoning":
                self.reasoning.append(event.content)
        elif type(event) is ToolCallEnd:
            self.tool_calls.append(event)
        elif type(event) is ToolCallFailed:
            self.failed_calls.append(event)
        elif type(event) is PredictionEnd:
            self.end = event
