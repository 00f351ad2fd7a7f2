"""Calls that cannot be read: brackets are completed, strings are not."""

from typing import Any

import pytest

from lmstudio_integrations.client.predictions.calls_in_text.call_repair import MeantTools, calls_in, split_calls

PARAMETERS = {"type": "object", "properties": {"host": {"type": "string"}, "tags": {"type": "array"}}}
TOOLS = MeantTools([{"type": "function", "function": {"name": "ping", "parameters": PARAMETERS}}])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"host": "a"', [{"host": "a"}]),
        ('{"host": "a"}}', [{"host": "a"}]),
        ('{"host": "a"]}', [{"host": "a"}]),
        ('{"tags": ["x"}', [{"tags": ["x"]}]),
        ('{"host": "a", "tags": ["x"', [{"host": "a", "tags": ["x"]}]),
        ('{"host": "\\"{"', [{"host": '"{'}]),
        ('<tool_call>{"name": "ping", "arguments": {"host": "a"</tool_call>', [{"host": "a"}]),
        ('<tool_call>{"name": "ping", "arguments": {}</tool_call>', [{}]),
        ('{"host": "a', []),
        ('{"tags": ["x', []),
        ('{"host": "a"} and so on', []),
    ],
)
def test_only_brackets_after_a_value_are_completed(text: str, expected: list[dict[str, Any]]) -> None:
    assert [each.arguments for each in calls_in(text, TOOLS, "ping")] == expected


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


def test_a_name_that_resembles_two_tools_means_none() -> None:
    assert LOOKING.meant("GET_USER") is None
    assert calls_in('{"a": 1', LOOKING, "GET_USER") == []


@pytest.mark.parametrize(
    ("unit", "end"),
    [
        ("{", ""),
        ("{", "]" * 100_000),
        ("}", ""),
        (" ", ""),
        ('{"name": "', "</tool_call> " * 10_000),
        ("</tool_call>", ""),
    ],
    ids=["open", "closed", "closing", "spaces", "names", "marked"],
)
def test_a_long_text_takes_linear_time(unit: str, end: str) -> None:
    """With quadratic time, it would be minutes."""
    for beginning in ("", '<tool_call>{"name": "ping", "arguments": {'):
        text = beginning + unit * (100_000 // len(unit)) + end
        parts = [*calls_in(text, TOOLS, "ping"), *split_calls(text, TOOLS)]
        assert not any(each.arguments for each in parts if not isinstance(each, str))


PING = '{"name": "ping", "arguments": {"host": "a"}}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"<tool_call>{PING}</tool_call><tool_call>zzz</tool_call>", ["ping", "<tool_call>zzz</tool_call>"]),
        (f"<tool_calls><tool_call>zzz</tool_call>\n<tool_call>{PING}</tool_call></tool_calls>", [None, "ping"]),
        (f"[TOOL_CALLS][{PING}, {PING}, {PING[:-8]}", ["ping", "ping", PING[:-8]]),
        ("[ping(host='a'), ping(host='b]", ["ping", "ping(host='b]"]),
        # Nothing was meant by these.
        (f"<tool_call>{PING}</tool_call><tool_call></tool_call>", ["ping"]),
        (f"<tool_call>{PING} and so on</tool_call><tool_call>{PING}</tool_call>", ["ping", "ping"]),
        # They may be one call or several.
        (f"<tool_call>zzz <tool_call>{PING}</tool_call></tool_call>", [None]),
        (f"[TOOL_CALLS][{PING[:-8]}, {PING}]", []),
        (f"<tool_call>zzz</tool_call><tool_call>{PING}</tool_call>" * 33, []),
    ],
)
def test_a_text_is_split_into_its_calls(text: str, expected: list[str | None]) -> None:
    parts = [each if isinstance(each, str) else each.tool.name for each in split_calls(text, TOOLS)]
    assert [part if wanted is not None else None for part, wanted in zip(parts, expected, strict=True)] == expected
