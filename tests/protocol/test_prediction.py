"""Packets of a prediction to events and back, and what remains of them at the end."""

import json
import logging
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, get_args

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.protocol.envelope import DEEPEST
from lmstudio_integrations.protocol.prediction import (
    Accumulator,
    decode,
    encode,
)
from tests.protocol.samples import SUCCESS, TOOL_CALL, fragment, progress

DETAILS = {
    "cachedTokenCount": 1,
    "totalPromptTokenCount": 9,
    "processedPromptTokenCount": 8,
    "unprocessedPromptTokenCount": 0,
}
TOKENS = [{"text": "Hello", "id": 1, "logProb": -0.1, "candidates": []}]

PACKETS: list[tuple[dict[str, Any], lms.PredictionEvent]] = [
    (progress(0.5), lms.PromptProgress(0.5)),
    ({**progress(1), "details": DETAILS}, lms.PromptProgress(1, DETAILS)),
    (fragment("Hello"), lms.LlmPredictionFragment("Hello")),
    (
        fragment(
            "Hm",
            tokensCount=2,
            containsDrafted=True,
            reasoningType="reasoning",
            isStructural=True,
            tokens=TOKENS,
        ),
        lms.LlmPredictionFragment("Hm", 2, True, "reasoning", True, TOKENS),
    ),
    ({"type": "toolCallGenerationStart", "toolCallId": "abc"}, lms.ToolCallStart("abc")),
    ({"type": "toolCallGenerationStart"}, lms.ToolCallStart()),
    ({"type": "toolCallGenerationStart", "argumentsFormat": "json"}, lms.ToolCallStart(None, "json")),
    ({"type": "toolCallGenerationNameReceived", "name": "add"}, lms.ToolCallName("add")),
    ({"type": "toolCallGenerationArgumentFragmentGenerated", "content": '{"a"'}, lms.ToolCallArguments('{"a"')),
    (
        {"type": "toolCallGenerationEnd", "toolCallRequest": TOOL_CALL, "rawContent": "<tool>"},
        lms.ToolCallEnd("abc", "add", {"a": 1, "b": 2}, "<tool>"),
    ),
    (
        {"type": "toolCallGenerationEnd", "toolCallRequest": {"type": "function", "name": "add"}},
        lms.ToolCallEnd(None, "add"),
    ),
    (
        {"type": "toolCallGenerationFailed", "error": {"title": "no"}, "rawContent": "<tool"},
        lms.ToolCallFailed({"title": "no"}, "<tool"),
    ),
    ({"type": "toolCallGenerationFailed", "error": {}}, lms.ToolCallFailed({})),
    (SUCCESS, lms.PredictionEnd(SUCCESS["stats"], {"type": "llm"}, {"fields": []}, {"fields": []})),
]


@pytest.mark.parametrize(("packet", "event"), PACKETS, ids=lambda value: str(value)[:40])
def test_every_packet_has_its_event_and_every_event_its_packet(
    packet: dict[str, Any], event: lms.PredictionEvent
) -> None:
    assert decode(packet) == event
    assert encode(event) == packet


VALUES: dict[Any, Any] = {str: "a", float: 0.5, int: 1, str | None: "a", dict[str, Any]: {}, Mapping[str, Any]: {}}
"""Of each type that a member of an event may have, if it is required."""


@pytest.mark.parametrize("event", get_args(lms.PredictionEvent))
def test_every_event_has_a_kind_and_is_read_from_the_packet_that_it_becomes(event: Any) -> None:
    sample = event(*(VALUES[each.type] for each in fields(event) if each.default is MISSING))
    assert decode(encode(sample)) == sample
    assert sample.kind in {"progress", "text", "call", "end"}


@pytest.mark.parametrize(
    ("packet", "event"),
    [
        ({"type": "fragment", "fragment": {"content": "a"}, "logprobs": []}, lms.LlmPredictionFragment("a")),
        ({"type": "fragment", "fragment": "a"}, lms.LlmPredictionFragment("a")),
        ({"type": "success", "stats": {}}, lms.PredictionEnd({}, {}, {}, {})),
        ({"type": "toolCallGenerationFailed"}, lms.ToolCallFailed({})),
        ({"type": "toolCallGenerationFailed", "error": "no"}, lms.ToolCallFailed({"title": "no"})),
        ({"type": "toolCallGenerationStart", "toolCallId": 5}, lms.ToolCallStart()),
        ({"type": "toolCallGenerationStart", "argumentsFormat": ["json"]}, lms.ToolCallStart()),
        ({**progress(1), "details": "?"}, lms.PromptProgress(1)),
        (
            {"type": "toolCallGenerationEnd", "toolCallRequest": {"name": "f", "id": None, "arguments": None}},
            lms.ToolCallEnd(None, "f"),
        ),
    ],
)
def test_members_that_older_servers_omit_have_defaults(packet: dict[str, Any], event: lms.PredictionEvent) -> None:
    assert decode(packet) == event


def _nested(levels: int) -> Any:
    """Return a JSON value of so many levels."""
    return json.loads("[" * levels + "]" * levels)


def values(*given: Any) -> tuple[Any, ...]:
    """Return JSON values."""
    return given


def _called(arguments: Any) -> dict[str, Any]:
    return {"type": "toolCallGenerationEnd", "toolCallRequest": {"name": "f", "arguments": arguments}}


@pytest.mark.parametrize(
    ("members", "event"),
    [
        *(({"tokensCount": value}, lms.LlmPredictionFragment("a")) for value in values("3", None, 1.5, True)),
        *(({name: 5}, lms.LlmPredictionFragment("a")) for name in ("reasoningType", "isStructural", "containsDrafted")),
        *(
            ({"tokens": value}, lms.LlmPredictionFragment("a"))
            for value in values(
                *("x", {}, [None], [{"text": 5}], [{"logProb": 10**400}], [{"logProb": float("nan")}], [{"id": []}]),
                *([{"candidates": {"a": 1}}], [{"candidates": ["x"]}], [{"candidates": [{"text": 5}]}]),
            )
        ),
        ({"tokens": [{"logProb": None}]}, lms.LlmPredictionFragment("a", tokens=[{"logProb": None}])),
        ({"tokens": [{"text": "\ud83d"}]}, lms.LlmPredictionFragment("a", tokens=[{"text": "\ufffd"}])),
    ],
    ids=str,
)
def test_a_malformed_member_of_a_fragment_is_ignored(members: dict[str, Any], event: lms.LlmPredictionFragment) -> None:
    assert decode(fragment("a", **members)) == event


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        *(("stats", {"stopReason": value}, {}) for value in values(5, None)),
        *(("stats", {"promptTokensCount": value}, {}) for value in values("3", -1, 1.5, True, 10**400)),
        *(("stats", {"tokensPerSecond": value}, {}) for value in values("3", float("nan"), 10**400, True)),
        ("stats", {"stopString": 5, "numGpuLayers": -1}, {"numGpuLayers": -1}),
        ("stats", {"stopString": None, "fromTheFuture": [1]}, {"stopString": None, "fromTheFuture": [1]}),
        ("stats", {"stopString": "\ud800"}, {"stopString": "\ufffd"}),
        *(("modelInfo", value, {}) for value in values(None, "x", {"a": _nested(300)})),
        ("modelInfo", {"modelKey": 5, "vision": True}, {"vision": True}),
        *(("modelInfo", {"contextLength": value}, {}) for value in values("4096", -1)),
        ("modelInfo", {"modelKey": "\ud800"}, {"modelKey": "\ufffd"}),
        *(("loadModelConfig", value, {}) for value in values(None, {"fields": {}})),
        ("loadModelConfig", {"fields": [None, {"key": 5}, {}, {"key": "a"}]}, {"fields": [{"key": "a"}]}),
        ("predictionConfig", {"fields": [[]]}, {"fields": []}),
    ],
    ids=str,
)
def test_a_malformed_member_of_the_last_packet_is_ignored(name: str, value: Any, read: dict[str, Any]) -> None:
    names = {"stats": "stats", "modelInfo": "model_info"}
    names |= {"loadModelConfig": "load_model_config", "predictionConfig": "prediction_config"}
    end = decode({**SUCCESS, name: value})
    assert isinstance(end, lms.PredictionEnd)
    assert getattr(end, names[name]) == read


@pytest.mark.parametrize(
    ("packet", "event"),
    [
        *((progress(value), None) for value in values("half", True, float("nan"), 10**400)),
        ({"type": "promptProcessingProgress"}, None),
        ({**progress(1), "details": {"cachedTokenCount": "3", "a": 5}}, lms.PromptProgress(1, {"a": 5})),
        ({"type": "toolCallGenerationStart", "toolCallId": "\ud800"}, lms.ToolCallStart("\ufffd")),
        ({"type": "toolCallGenerationFailed", "error": {"title": "\ud800"}}, lms.ToolCallFailed({"title": "\ufffd"})),
        ({"type": "toolCallGenerationFailed", "error": {"cause": _nested(300)}}, lms.ToolCallFailed({})),
        ({"type": "toolCallGenerationFailed", "rawContent": 5}, lms.ToolCallFailed({})),
        (
            _called({"a": ["\ud800", 1, None], "\udc00": "b"}),
            lms.ToolCallEnd(None, "f", {"a": ["\ufffd", 1, None], "\ufffd": "b"}),
        ),
        (_called({"a": _nested(DEEPEST - 1)}), lms.ToolCallEnd(None, "f", {"a": _nested(DEEPEST - 1)})),
    ],
    ids=lambda value: str(value)[:60],
)
def test_malformed_descriptive_members_are_dropped(packet: dict[str, Any], event: lms.PredictionEvent | None) -> None:
    assert decode(packet) == event


@pytest.mark.parametrize(
    "packet",
    [
        *({"type": "fragment", "fragment": value} for value in values(None, {}, [], {"content": None}, {"content": 5})),
        *(
            {"type": "success", **more}
            for more in values({}, {"stats": None}, {"stats": []}, {"stats": {"a": _nested(300)}})
        ),
        *({"type": "toolCallGenerationNameReceived", "name": value} for value in values(None, 5)),
        {"type": "toolCallGenerationArgumentFragmentGenerated", "content": []},
        *({"type": "toolCallGenerationEnd", "toolCallRequest": value} for value in values(None, [], {}, {"name": 5})),
        *map(_called, ([], "{}", 5, {"a": _nested(DEEPEST)})),
    ],
    ids=lambda value: str(value)[:60],
)
def test_malformed_text_and_tool_calls_are_rejected(packet: dict[str, Any]) -> None:
    with pytest.raises((LookupError, TypeError, AttributeError)):
        decode(packet)


def test_a_malformed_member_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    decode(fragment("a", tokensCount="3"))
    decode({**SUCCESS, "modelInfo": []})
    assert [record.getMessage() for record in caplog.records] == [
        "ignored a malformed tokensCount",
        "ignored a malformed modelInfo",
    ]


def accumulated(*events: lms.PredictionEvent | None) -> lms.PredictionResult:
    """Return the result of a prediction with these events."""
    received = [*(event or pytest.fail("it has an event") for event in events), END]
    at_once, one_by_one = Accumulator(), Accumulator()
    at_once.add_all(received)
    for event in received:
        one_by_one.add(event)
    assert one_by_one == at_once
    return at_once.result()


END = lms.PredictionEnd({"stopReason": "eosFound"}, {}, {}, {})
TOKEN_A, TOKEN_B, TOKEN_C = ({"text": text, "logProb": -1.0} for text in "abc")


def test_text_and_reasoning_are_separate_and_markup_belongs_to_neither() -> None:
    packets = (
        {**progress(0.5), "details": {"cachedTokenCount": 3}},
        {**progress(0.7), "details": {"a": 1}},
        {"type": "fromTheFuture"},
        fragment("<think>", reasoningType="reasoningStartTag", isStructural=True, tokens=[TOKEN_A]),
        fragment("Let me ", reasoningType="reasoning", tokensCount=2, tokens=[TOKEN_B]),
        fragment("see.", reasoningType="reasoning"),
        fragment("</think>", reasoningType="reasoningEndTag", isStructural=True),
        fragment("\n", isStructural=True, tokens=[TOKEN_A]),
        fragment("4", tokens=[TOKEN_C, TOKEN_A]),
        fragment("2"),
        fragment("?", reasoningType="fromTheFuture"),
    )
    result = accumulated(*(event for event in map(decode, packets) if event is not None))
    assert (result.content, result.parsed, result.reasoning_content) == ("42", "42", "Let me see.")
    assert result.raw_content == "<think>Let me see.</think>\n42?"
    assert result.tokens == (TOKEN_B, TOKEN_C, TOKEN_A)
    assert result.reasoning_tokens == 6
    assert result.cached_tokens == 3


def test_a_token_count_that_is_out_of_range_is_not_added() -> None:
    counts = (2, -5, 10**4_000)
    fragments = [lms.LlmPredictionFragment("Hm.", count, reasoning_type="reasoning") for count in counts]
    assert accumulated(*fragments).reasoning_tokens == 2


def test_tool_calls_keep_their_order_and_what_was_received_of_them() -> None:
    failure = lms.ToolCallFailed({"title": "no"}, "<tool")
    result = accumulated(
        lms.ToolCallStart("1"),
        lms.ToolCallName("f"),
        lms.ToolCallArguments('{"a"'),
        lms.ToolCallArguments(": 1}"),
        lms.ToolCallEnd("1", "f", {"a": 1}),
        lms.ToolCallStart("2"),
        lms.ToolCallArguments("{"),
        lms.ToolCallStart("3"),
        failure,
        lms.ToolCallEnd("4", "g"),
        failure,
        lms.ToolCallStart("1"),
    )
    assert result.tool_calls == (
        lms.ToolCallRecord("1", "f", ['{"a"', ": 1}"], end=lms.ToolCallEnd("1", "f", {"a": 1})),
        lms.ToolCallRecord("2", None, ["{"]),
        lms.ToolCallRecord("3", failure=failure),
        lms.ToolCallRecord("4", end=lms.ToolCallEnd("4", "g")),
        lms.ToolCallRecord(failure=failure),
        lms.ToolCallRecord("1"),
    )
    assert [call.id for call in result.tool_call_requests] == ["1", "4"]
    assert result.end is END


def test_parts_of_a_tool_call_that_has_not_begun_are_ignored() -> None:
    stray: list[lms.PredictionEvent] = [lms.ToolCallName("f"), lms.ToolCallArguments("{")]
    complete = lms.ToolCallEnd("1", "f")
    assert accumulated(*stray).tool_calls == ()
    assert accumulated(complete, *stray).tool_calls == (lms.ToolCallRecord("1", end=complete),)


START, END_TAG, THOUGHT, TEXT, SPACE = "reasoningStartTag", "reasoningEndTag", "reasoning", "none", "space"

THOUGHTS: dict[str, tuple[list[tuple[str, str]], list[lms.Thought]]] = {
    "with tags": (
        [(START, "<a>"), (THOUGHT, "x"), (THOUGHT, "y"), (END_TAG, "</a>")],
        [lms.Thought("xy", "<a>", "</a>")],
    ),
    "opened by the prompt": ([(THOUGHT, "x"), (END_TAG, "</a>")], [lms.Thought("x", "", "</a>")]),
    "cut off": ([(START, "<a>"), (THOUGHT, "x")], [lms.Thought("x", "<a>")]),
    "white space behind the tag": (
        [(THOUGHT, "x"), (END_TAG, "</a>"), (SPACE, "\n"), (SPACE, "\n"), (TEXT, "t"), (SPACE, "\n")],
        [lms.Thought("x", "", "</a>\n\n")],
    ),
    "other markup behind the tag": (
        [(THOUGHT, "x"), (END_TAG, "</a>"), (SPACE, "<b>")],
        [lms.Thought("x", "", "</a>")],
    ),
    "a text between": ([(THOUGHT, "x"), (TEXT, "tt"), (THOUGHT, "y")], [lms.Thought("x"), lms.Thought("y", at=2)]),
    "a start tag between": (
        [(THOUGHT, "x"), (START, "<a>"), (THOUGHT, "y")],
        [lms.Thought("x"), lms.Thought("y", "<a>")],
    ),
    "an empty one behind another": (
        [(THOUGHT, "x"), (END_TAG, "</a>"), (START, "<b>"), (END_TAG, "</b>")],
        [lms.Thought("x", "", "</a>"), lms.Thought("", "<b>", "</b>")],
    ),
    "an empty one": (
        [(START, "<a>"), (END_TAG, "</a>"), (SPACE, "\n"), (TEXT, "t")],
        [lms.Thought("", "<a>", "</a>\n")],
    ),
    "an empty one that the prompt opened": ([(END_TAG, "</a>"), (TEXT, "t")], [lms.Thought("", "", "</a>")]),
    "an end alone": ([(TEXT, "t"), (END_TAG, "</a>")], []),
}
"""Kinds of fragments and their contents, where `space` is markup, and the thoughts of the result."""


@pytest.mark.parametrize(("fragments", "expected"), THOUGHTS.values(), ids=THOUGHTS)
def test_thoughts_have_their_tags_and_places(fragments: list[tuple[str, str]], expected: list[lms.Thought]) -> None:
    events = [
        lms.LlmPredictionFragment(
            content,
            reasoning_type=TEXT if kind == SPACE else kind,
            is_structural=kind not in {THOUGHT, TEXT},
        )
        for kind, content in fragments
    ]
    assert accumulated(*events).thoughts == tuple(expected)
