"""Packets of a prediction to events and back, and what remains of them at the end."""

from typing import Any

import pytest

from lmstudio_integrations.protocol.prediction import Accumulator, LegacyPredictionError, decode, encode
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
from tests.protocol.samples import SUCCESS, TOOL_CALL, fragment, progress
from tests.requirements import proves

DETAILS = {
    "cachedTokenCount": 1,
    "totalPromptTokenCount": 9,
    "processedPromptTokenCount": 8,
    "unprocessedPromptTokenCount": 0,
}
TOKENS = [{"text": "Hello", "id": 1, "logProb": -0.1, "candidates": []}]

PACKETS: list[tuple[dict[str, Any], PredictionEvent]] = [
    (progress(0.5), PromptProgress(0.5)),
    ({**progress(1), "details": DETAILS}, PromptProgress(1, DETAILS)),
    (fragment("Hello"), LlmPredictionFragment("Hello")),
    (
        fragment(
            "Hm",
            tokensCount=2,
            containsDrafted=True,
            reasoningType="reasoning",
            isStructural=True,
            tokens=TOKENS,
        ),
        LlmPredictionFragment("Hm", 2, True, "reasoning", True, TOKENS),
    ),
    ({"type": "toolCallGenerationStart", "toolCallId": "abc"}, ToolCallStart("abc")),
    ({"type": "toolCallGenerationStart"}, ToolCallStart()),
    ({"type": "toolCallGenerationNameReceived", "name": "add"}, ToolCallName("add")),
    ({"type": "toolCallGenerationArgumentFragmentGenerated", "content": '{"a"'}, ToolCallArguments('{"a"')),
    (
        {"type": "toolCallGenerationEnd", "toolCallRequest": TOOL_CALL, "rawContent": "<tool>"},
        ToolCallEnd("abc", "add", {"a": 1, "b": 2}, "<tool>"),
    ),
    (
        {"type": "toolCallGenerationEnd", "toolCallRequest": {"type": "function", "name": "add"}},
        ToolCallEnd(None, "add"),
    ),
    (
        {"type": "toolCallGenerationFailed", "error": {"title": "no"}, "rawContent": "<tool"},
        ToolCallFailed({"title": "no"}, "<tool"),
    ),
    ({"type": "toolCallGenerationFailed", "error": {}}, ToolCallFailed({})),
    (SUCCESS, PredictionEnd(SUCCESS["stats"], {"type": "llm"}, {"fields": []}, {"fields": []})),
]


@proves("C-PREDICTION-EVENTS")
@pytest.mark.parametrize(("packet", "event"), PACKETS, ids=lambda value: str(value)[:40])
def test_every_packet_has_its_event_and_every_event_its_packet(packet: dict[str, Any], event: PredictionEvent) -> None:
    assert decode(packet) == event
    assert encode(event) == packet


@proves("C-OLD-SERVERS")
@pytest.mark.parametrize(
    ("packet", "event"),
    [
        ({"type": "fragment", "fragment": {"content": "a"}, "logprobs": []}, LlmPredictionFragment("a")),
        ({"type": "success", "stats": {}}, PredictionEnd({}, {}, {}, {})),
        ({"type": "toolCallGenerationFailed"}, ToolCallFailed({})),
        ({"type": "toolCallGenerationFailed", "error": "no"}, ToolCallFailed({"title": "no"})),
        ({"type": "toolCallGenerationStart", "toolCallId": 5}, ToolCallStart()),
        ({**progress(1), "details": "?"}, PromptProgress(1)),
        (
            {"type": "toolCallGenerationEnd", "toolCallRequest": {"name": "f", "id": None, "arguments": None}},
            ToolCallEnd(None, "f"),
        ),
    ],
)
def test_what_older_or_careless_servers_leave_out_is_done_without(
    packet: dict[str, Any], event: PredictionEvent
) -> None:
    assert decode(packet) == event


def test_a_packet_of_an_unknown_kind_has_no_event() -> None:
    assert decode({"type": "fromTheFuture"}) is None


@pytest.mark.parametrize("error", [{"title": "no"}, "no"])
def test_the_error_packet_of_older_servers_is_raised(error: Any) -> None:
    with pytest.raises(LegacyPredictionError) as caught:
        decode({"type": "error", "error": error})
    assert caught.value.error == {"title": "no"}


def test_text_and_thoughts_are_kept_apart_and_markup_is_dropped() -> None:
    so_far = Accumulator()
    for piece in (
        fragment("<think>", reasoningType="reasoningStartTag", isStructural=True),
        fragment("Let me ", reasoningType="reasoning"),
        fragment("see.", reasoningType="reasoning"),
        fragment("</think>", reasoningType="reasoningEndTag", isStructural=True),
        fragment("\n", isStructural=True),
        fragment("4"),
        fragment("2"),
        fragment("?", reasoningType="fromTheFuture"),
    ):
        so_far.add(decode(piece) or pytest.fail("it has an event"))
    assert "".join(so_far.text) == "42"
    assert "".join(so_far.reasoning) == "Let me see."


def test_tool_calls_and_the_end_are_kept_in_the_order_in_which_they_came() -> None:
    so_far = Accumulator()
    events = [event for _, event in PACKETS]
    for event in events:
        so_far.add(event)
    assert so_far.tool_calls == [event for event in events if isinstance(event, ToolCallEnd)]
    assert so_far.failed_calls == [event for event in events if isinstance(event, ToolCallFailed)]
    assert so_far.end == events[-1]
