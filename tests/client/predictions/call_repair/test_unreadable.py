"""Calls that cannot be read: brackets are completed, strings are not."""

from typing import Any

import pytest

from lmstudio_integrations.client.predictions.call_repair.unreadable import MeantTools, calls_in

PARAMETERS = {"type": "object", "properties": {"host": {"type": "string"}, "tags": {"type": "array"}}}
TOOLS = MeantTools([{"type": "function", "function": {"name": "ping", "parameters": PARAMETERS}}])


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"host": "a"', {"host": "a"}),
        ('{"host": "a", "tags": ["x"', {"host": "a", "tags": ["x"]}),
        ('{"host": "a"}}', {"host": "a"}),
        ('<tool_call>{"name": "ping", "arguments": {"host": "a"</tool_call>', {"host": "a"}),
        ('<tool_call>{"name": "ping", "arguments": {}</tool_call>', {}),
    ],
)
def test_a_bracket_after_a_value_is_completed(text: str, arguments: dict[str, Any]) -> None:
    assert [each.arguments for each in calls_in(text, TOOLS, "ping")] == [arguments]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"host": "a",',
        '{"host": "a", "tags": [',
        '{"host": "a", "tags": ["x", ',
        '{"host":',
        '<tool_call>{"name": "ping", "arguments": {',
        '<tool_call>{"name": "ping", "arguments": {"host": "a",\n</tool_call>',
    ],
)
def test_what_should_have_followed_is_not_left_out(text: str) -> None:
    assert calls_in(text, TOOLS, "ping") == []


LOOKING = MeantTools({"function": {"name": name}} for name in ("look", "get_user", "getUser"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": "x"', [{"a": "x"}]),
        ('{"a": "x"}}', [{"a": "x"}]),
        ('{"a": "x"]}', [{"a": "x"}]),
        ('{"a": ["x"}', [{"a": ["x"]}]),
        ('{"a": ["x"', [{"a": ["x"]}]),
        ('{"a": "\\"{"', [{"a": '"{'}]),
        ('{"a": "x', []),
        ('{"a": ["x', []),
        ('{"a": "x"} and so on', []),
    ],
)
def test_only_brackets_are_completed(text: str, expected: list[dict[str, Any]]) -> None:
    assert [call.arguments for call in calls_in(text, LOOKING, "look")] == expected


def test_a_name_that_resembles_two_tools_means_none() -> None:
    assert LOOKING.meant("GET_USER") is None
    assert calls_in('{"a": 1', LOOKING, "GET_USER") == []
