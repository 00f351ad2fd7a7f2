"""Properties of reading calls in a text: the way in which it arrives does not matter, and what is read fits."""

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions.calls_in_text import call_parser, formats, lenient_json, parser
from lmstudio_integrations.client.predictions.calls_in_text.read_calls import ReadCalls
from lmstudio_integrations.client.predictions.middleware import Ask
from lmstudio_integrations.types._json_schemas import ArgumentSchema
from lmstudio_integrations.types.reasoning import USUAL_TAGS
from tests.client.predictions.calls_in_text.test_corpus import _TOOLS, cases, offered
from tests.client.predictions.middlewares import end, passed, plan_with

_CASES = [case for name in ("outputs.jsonl", "fresh_outputs.jsonl", "texts.jsonl") for case in cases(name)]
_MARKUP = (*"{}[]<>\"'`,:()=/ \n|_a1", "</think>", "<tool_call>", "</tool_call>", "```", '"name": ', "\\u00e9")


@st.composite
def _texts(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a text of the corpus: as it is, cut off, with something inserted, or before another one."""
    case = dict(draw(st.sampled_from(_CASES)))
    text: str = case["text"]
    at = draw(st.integers(0, len(text)))
    insert = draw(st.sampled_from(_MARKUP))
    changed = (text, text[:at], text[:at] + insert + text[at:], text + insert + draw(st.sampled_from(_CASES))["text"])
    case["text"] = draw(st.sampled_from(changed))
    return case


def _outcome(case: dict[str, Any], fragments: list[str]) -> Any:
    batches: list[list[lms.PredictionEvent]] = [[lms.LlmPredictionFragment(each)] for each in fragments]
    accumulator, delivered = passed(ReadCalls(plan_with(offered(case))), [*batches, [end()]])
    result = accumulator.result()
    text = "".join(each.content for each in delivered if isinstance(each, lms.LlmPredictionFragment))
    assert text == result.content
    calls = [(each.name, each.arguments) for each in delivered if isinstance(each, lms.ToolCallEnd)]
    assert calls == [(each.name, each.arguments) for each in result.tool_call_requests]
    return text, calls, [each.error for each in delivered if isinstance(each, lms.ToolCallFailed)]


@settings(max_examples=100)
@given(case=_texts(), data=st.data())
def test_any_split_of_a_text_gives_the_same_message(case: dict[str, Any], data: st.DataObject) -> None:
    text = case["text"]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=40)))
    ends = [*cuts, len(text)]
    fragments = [text[begin:stop] for begin, stop in zip([0, *cuts], ends, strict=True)]
    whole = _outcome(case, [text])
    assert _outcome(case, fragments) == whole
    assert _outcome(case, list(text)) == whole
    for name, arguments in whole[1]:
        assert ArgumentSchema(_TOOLS[name], name).problems(arguments) == []


_ADD = {"tools": ["add"]}
_CALL = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'


_SIZE, _MOST_READINGS = 2_000, 42
_MARKERS = {
    **{known.name: (*known.begins, *known.ends, *known.bodies) for known in formats.FORMATS},
    "other tokens": (*formats._AFTER_RESPONSE, *formats._BEFORE_ARGUMENTS, *formats.NEXT_TURNS),
    "tags of thoughts": tuple(tag for tags in USUAL_TAGS for tag in tags),
    "tags of arguments": tuple(f"<tool_call>add{tag}" for tags in formats.ARGUMENT_TAGS for tag in tags),
    "rewritten tags": ("<|open|>", "<|open|>call tool=", "<|close|>a<|sep|>", formats.MINIMAX_SEPARATOR),
    "bare calls": ("call:add{a:1", "call:add{a:", "call:", "}call:", ",a:1"),
    "quotes": (*lenient_json._QUOTES, *lenient_json._DELIMITERS, *parser._QUOTING),
    "brackets": ("{", "[", "(", "<", "}", "]", ")", ">", "{{", '{"a":', '{"name": "add", "arguments": {"a": ['),
    "fences": ("```", "```json\n", "~~~", "````\n", "> ```\n", "`"),
    "calls": (f"{_CALL}\n", "<function=add><parameter=a>1", "<tool_call>add<arg_key>a", "<tool_call>          "),
    "plain text": ("a ", "a", " ", "\n", "| ", "- a\n", "\\u00e9"),
}
"""What the readers know, by kind."""

_LONG_CALLS = [
    ("<tool_call>add", "a", "</arg_key>"),
    ("<tool_call>add", "\n<arg_key>{}</arg_key><arg_value>1</arg_value>", ""),
    ("<tool_call><function=add>", "\n<parameter={}>1</parameter>", ""),
    ('<tool_call>{{"name": "add", "arguments": {{', '"{}": "\\u00e9", ', ""),
    ("[TOOL_CALLS]add(", "{}='1', ", ""),
    ("<|tool_call>call:add{{a:b", "}} ", ""),
    ("<|tool_call>call:add{{a:b", ",a:b", "}}"),
    ("<|tool_call:start|>add", "<|tool_arg:start|>{}<|tool_arg:value|>1<|tool_arg:end|>", ""),
    ("<|open|>tools<|sep|>", '<|open|>call tool="add"<|sep|>{}<|close|>call<|sep|>', ""),
    ("[TOOL_CALLS][", '{{"name": "add", "arguments": {{}}}}, ', ""),
]
"""Beginnings of calls, what is repeated in them with other names, and their ends."""


def _long_texts(kind: str) -> list[str]:
    if kind == "long calls":
        return [
            begin.format() + "".join(unit.format(f"a{number}") for number in range(_SIZE // len(unit))) + end
            for begin, unit, end in _LONG_CALLS
        ]
    units = [unit for marker in _MARKERS[kind] for unit in (marker, f'"</think>{marker}\n')]
    return [(unit * _SIZE)[:_SIZE] for unit in units]


class _CountingPattern:
    """A pattern that counts the characters that it is given, or reads."""

    def __init__(self, pattern: "re.Pattern[str]", count: Callable[[int], None]) -> None:
        self._pattern = pattern
        self._count = count

    def match(self, text: str, at: int = 0) -> "re.Match[str] | None":
        found = self._pattern.match(text, at)
        self._count(1 if found is None else found.end() - at)
        return found

    def search(self, text: str, at: int = 0, end: int = sys.maxsize) -> "re.Match[str] | None":
        found = self._pattern.search(text, at, end)
        self._count(min(end, len(text)) - at if found is None else found.end() - at)
        return found

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def method(*arguments: str) -> Any:
            self._count(len(arguments[-1]))
            return getattr(self._pattern, name)(*arguments)

        return method


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The characters that were copied, searched or given to a reader."""
    work = list[int]()

    for module in (call_parser, parser, formats, lenient_json):
        for name, value in list(vars(module).items()):
            if isinstance(value, re.Pattern):
                monkeypatch.setattr(module, name, _CountingPattern(value, work.append))
    for tokens in [value for value in vars(formats).values() if isinstance(value, formats.Tokens)]:
        monkeypatch.setattr(tokens, "_pattern", _CountingPattern(tokens._pattern, work.append))
    for quote, plain in lenient_json._PLAIN.items():
        monkeypatch.setitem(lenient_json._PLAIN, quote, _CountingPattern(plain, work.append))

    class CountingCursor(lenient_json.TextCursor):
        def __init__(self, text: str, at: int = 0) -> None:
            super().__init__(_CountingString(text), at)

    class _CountingString(str):
        __slots__ = ()

        def __getitem__(self, place: Any) -> str:
            part = super().__getitem__(place)
            work.append(len(part))
            return part

    monkeypatch.setattr(parser, "TextCursor", CountingCursor)
    return work


@pytest.mark.parametrize("step", [5, 10_000], ids=["streamed", "whole"])
@pytest.mark.parametrize("kind", [*_MARKERS, "long calls"])
def test_a_long_text_is_read_a_few_times_only(kind: str, step: int, work: list[int]) -> None:
    """Work that grows with the square of the length is more than this by far."""
    found: dict[str, float] = {}
    for text in _long_texts(kind):
        work.clear()
        _outcome(_ADD, [text[at : at + step] for at in range(0, len(text), step)])
        found[text[:40]] = sum(work) / len(text)
    assert {begin: times for begin, times in found.items() if times > _MOST_READINGS} == {}


@pytest.mark.parametrize(
    ("before", "later"),
    [
        ("now:\n", [":\n", "", "", "", '<tool_call>{"name": 1} means that', "."]),
        ("now: ", [": ", "", '<tool_call>{"na', 'me": 1}', " means that", "."]),
    ],
    ids=["on a line", "in a sentence"],
)
def test_text_flows_until_a_call_may_begin(before: str, later: list[str]) -> None:
    reader, ask, shown = ReadCalls(plan_with(offered(_ADD))), Ask(), list[str]()
    fragments = ("See", " <b", "r> ", "now", before[3:], "<tool", '_call>{"na', 'me": 1}', " means that", ".")
    for fragment in fragments:
        batch: list[lms.PredictionEvent] = [lms.LlmPredictionFragment(fragment), lms.PromptProgress(0.5)]
        _, released = passed(reader, [batch], ask)
        shown.append("".join(each.content for each in released if isinstance(each, lms.LlmPredictionFragment)))
        assert lms.PromptProgress(0.5) in released
    assert shown == ["See", " <b", "r> ", "now", *later]


def test_a_call_that_is_too_long_stays_text() -> None:
    content = "x" * 300_000
    case = {"tools": ["write_file"]}
    call = json.dumps({"name": "write_file", "arguments": {"path": "a", "content": content}})
    text = f"<tool_call>{call}</tool_call>"
    content, calls, failed = _outcome(case, [text[at : at + 1000] for at in range(0, len(text), 1000)])
    assert (content, calls, len(failed)) == (text, [], 1)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([("reasoning", f"So:\n{_CALL}")], ("So:\n", "", 1)),
        ([("reasoning", f"So: {_CALL}")], (f"So: {_CALL}", "", 0)),
        ([("reasoning", "Hm."), ("reasoningEndTag", "</think>"), ("none", _CALL)], ("Hm.", "", 1)),
        ([("reasoning", _CALL), ("reasoningEndTag", "</think>"), ("none", "3.")], (_CALL, "3.", 0)),
        ([("reasoning", _CALL), ("none", "3.")], (_CALL, "3.", 0)),
        ([("reasoning", f"{_CALL} or not")], (f"{_CALL} or not", "", 0)),
        ([("reasoning", '{"name": "add", "arguments": {"a": 1, "b": 2}}')], (None, "", 0)),
        ([("none", "3."), ("reasoning", _CALL)], (_CALL, "3.", 0)),
    ],
)
def test_reasoning_that_never_ended_may_end_with_a_call(
    parts: list[tuple[str, str]], expected: tuple[str | None, str, int]
) -> None:
    for size in (1, 1000):
        batch: list[lms.PredictionEvent] = [
            lms.LlmPredictionFragment(text[at : at + size], reasoning_type=kind)
            for kind, text in parts
            for at in range(0, len(text), size)
        ]
        accumulator, _ = passed(ReadCalls(plan_with(offered(_ADD))), [batch, [end()]])
        result = accumulator.result()
        assert (result.content, len(result.tool_call_requests)) == expected[1:]
        assert result.reasoning_content == (parts[0][1] if expected[0] is None else expected[0])


def test_tokens_of_the_markup_are_dropped_with_it() -> None:
    tokens = [{"text": "So.\n"}, {"text": "<tool_call>"}]
    fragments: list[lms.PredictionEvent] = [lms.LlmPredictionFragment("So.\n<tool_call>", tokens=tokens)]
    accumulator, _ = passed(
        ReadCalls(plan_with(offered(_ADD))), [[*fragments, lms.LlmPredictionFragment(_CALL[11:])], [end()]]
    )
    result = accumulator.result()
    assert (result.content, result.tokens, len(result.tool_call_requests)) == ("So.\n", ({"text": "So.\n"},), 1)


def test_a_schema_that_is_none_fits_nothing() -> None:
    definition = {"type": "function", "function": {"name": "add", "parameters": {"type": "no type"}}}
    accumulator, _ = passed(ReadCalls(plan_with([definition])), [[lms.LlmPredictionFragment(_CALL)], [end()]])
    assert accumulator.result().tool_call_requests == ()
