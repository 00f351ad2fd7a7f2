"""Calls of a response that `RepairCalls` replaces: what their events have, and what is left after a retry."""

import json
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions.calls_in_text.read_calls import ReadCalls
from lmstudio_integrations.client.predictions.calls_in_text.repair_calls import RepairCalls
from lmstudio_integrations.client.predictions.middleware import Ask, Events
from tests.client.predictions.middlewares import end, passed, plan_with

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"version": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["version"],
}
TOOL = {"type": "function", "function": {"name": "install", "parameters": PARAMETERS}}


def repair() -> RepairCalls:
    return RepairCalls(plan_with([TOOL]))


def call(written: str, call_id: str = "c1") -> Events:
    fragments: Events = [lms.ToolCallArguments(each) for each in written]
    arguments = json.loads(written)
    return [
        lms.ToolCallStart(call_id),
        lms.ToolCallName("install"),
        *fragments,
        lms.ToolCallEnd(call_id, "install", arguments),
    ]


def ends(events: Events) -> list[lms.ToolCallEnd]:
    return [event for event in events if type(event) is lms.ToolCallEnd]


def test_a_number_for_a_text_has_the_digits_of_the_fragments_that_the_server_sent() -> None:
    delivered, events = passed(repair(), [call('{"version": 3.10}'), [end()]])
    assert [each.arguments for each in ends(events)] == [{"version": "3.10"}]
    assert delivered.end is not None
    (repaired,) = delivered.end.stats["repairedToolCalls"]
    assert repaired["sent"] == '{"name": "install", "arguments": {"version": 3.10}}'


def test_values_that_are_nested_too_deeply_stay_as_they_are() -> None:
    deep: Any = "a"
    for _ in range(3_000):
        deep = [deep]
    ended = lms.ToolCallEnd("c1", "install", {"version": deep})
    delivered, events = passed(repair(), [[lms.ToolCallStart("c1"), lms.ToolCallName("install"), ended], [end()]])
    assert ends(events) == [ended]
    assert delivered.end is not None
    assert "repairedToolCalls" not in delivered.end.stats


def test_a_number_whose_text_was_not_sent_is_no_text() -> None:
    sent: Events = [
        lms.ToolCallStart("c1"),
        lms.ToolCallName("install"),
        lms.ToolCallEnd("c1", "install", {"version": 3.1}),
    ]
    _, events = passed(repair(), [sent, [end()]], Ask())
    assert not ends(events)  # the model is asked for it


def test_numbers_in_the_text_are_plain_where_they_fit() -> None:
    text = lms.LlmPredictionFragment(
        '<tool_call>{"name": "install", "arguments": {"version": "1", "days": 3.0}}</tool_call>'
    )
    _, events = passed(ReadCalls(plan_with([TOOL], keeps_misfits=True)), [[text], [end()]])
    assert [type(each.arguments["days"]) for each in ends(events) if each.arguments] == [float]
    assert [each.content for each in events if type(each) is lms.ToolCallArguments] == ['{"version": "1", "days": 3.0}']


def test_an_empty_fragment_of_reasoning_does_not_end_the_text_before_it() -> None:
    begin, rest = '<tool_call>{"name": "install", ', '"arguments": {"version": "1"}}</tool_call>'
    empty = lms.LlmPredictionFragment("", reasoning_type="reasoning")
    batch: Events = [lms.LlmPredictionFragment(begin), empty, lms.LlmPredictionFragment(rest)]
    _, events = passed(ReadCalls(plan_with([TOOL])), [batch, [end()]])
    assert [each.arguments for each in ends(events)] == [{"version": "1"}]


def test_a_response_that_is_repeated_has_its_calls_once() -> None:
    middleware, ask = repair(), Ask()
    for written in ('{"version": 1}', '{"days": 1}'):  # one that was mended, and one that is held
        assert not [each for each in middleware.events(call(written), ask) if type(each) is lms.ToolCallFailed]
    middleware.events(call('{"version": "2"}')[:-1], ask)  # one that was begun
    middleware.reset(ask)
    delivered, events = passed(middleware, [call('{"version": 3}'), [end()]], ask)
    assert [each.arguments for each in ends(events)] == [{"version": "3"}]
    assert [type(each) for each in events].count(lms.ToolCallStart) == 1
    assert delivered.end is not None
    assert len(delivered.end.stats["repairedToolCalls"]) == 1


def test_calls_that_replace_one_have_identifiers_of_their_own() -> None:
    """The first one has that of the call that it replaces."""
    written = '{"name": "install", "arguments": {"version": "1"}}'
    failed: Events = [
        lms.ToolCallStart("c1"),
        lms.ToolCallFailed({"title": "…"}, f"<tool_call>{written}{written}</tool_call>"),
    ]
    _, events = passed(repair(), [failed, [end()]])
    first, second = (each.id for each in ends(events))
    assert first == "c1"
    assert second not in {None, "c1"}


def test_the_end_is_that_of_the_first_response_and_the_counts_are_those_of_both() -> None:
    middleware, first, second = repair(), Ask(), Ask()
    passed(middleware, [call('{"days": 1}'), [end()]], first)
    first.end, second.asked_by = end(), middleware
    last = lms.PredictionEnd({"stopReason": "maxPredictedTokensReached", "totalTokensCount": 7}, {}, {}, {})
    delivered, _ = passed(middleware, [[last]], second)
    assert delivered.end is not None
    stats = {name: delivered.end.stats[name] for name in ("stopReason", "totalTokensCount")}
    assert stats == {"stopReason": "eosFound", "totalTokensCount": 7}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"name": "install", "arguments": {"days": 1}', "install"),  # no marker
        ('```json\n{"name": "install", "arguments": {"days": 1}}\n```', "install"),
        ("<tool_call>inst</tool_call>", None),  # no name of a tool
        ("<tool_call>install is a tool</tool_call>", None),
        ('<tool_call>{"name": "uninstall", "arguments": {"days": </tool_call>', None),
        ('<tool_call>{"nam": "install", "arguments": {"days": </tool_call>', None),
    ],
)
def test_a_call_that_the_model_has_not_begun_is_not_asked_for(text: str, name: str | None) -> None:
    named = [] if name is None else [lms.ToolCallName(name)]
    failed: Events = [lms.ToolCallStart("c1"), *named, lms.ToolCallFailed({"title": "…"}, text)]
    middleware = repair()
    _, events = passed(middleware, [[lms.LlmPredictionFragment(text), *failed], [end()]], Ask())
    is_marked = text.startswith("<tool_call>")
    assert [type(each) for each in events if type(each) in {lms.ToolCallStart, lms.ToolCallFailed}] == (
        [lms.ToolCallStart, lms.ToolCallFailed] if is_marked else []
    )
    assert type(events[-1]) is lms.PredictionEnd  # and no further request


def test_a_call_of_the_server_is_asked_for_if_its_raw_text_has_a_complete_name() -> None:
    for text, is_asked in [('{"name": "install", "arguments": {"da', True), ('{"name": "insta', False), ("?", False)]:
        failed: Events = [lms.ToolCallStart("c1"), lms.ToolCallFailed({"title": "…"}, text)]
        _, events = passed(repair(), [failed, [end()]], Ask())
        assert (lms.PredictionEnd in map(type, events)) is not is_asked
