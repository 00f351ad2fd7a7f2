"""Properties of reading calls in a text: the way in which it arrives does not matter, and what is read fits."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmstudio_integrations.client.predictions.text_calls import scanner
from lmstudio_integrations.client.predictions.text_calls.reading import Candidate, is_quoted
from lmstudio_integrations.client.predictions.text_calls.rescue import Rescue
from lmstudio_integrations.client.predictions.text_calls.tools import OfferedTools
from lmstudio_integrations.types._json_schemas import ArgumentSchema
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEvent,
    PromptProgress,
    ToolCallEnd,
    ToolCallFailed,
)
from tests.client.predictions.text_calls.test_corpus import _TOOLS, cases, end, offered, received

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
    batches: list[list[PredictionEvent]] = [[LlmPredictionFragment(each)] for each in fragments]
    accumulator, delivered = received(Rescue(offered(case)), [*batches, [end()]])
    result = accumulator.result()
    text = "".join(each.content for each in delivered if isinstance(each, LlmPredictionFragment))
    assert text == result.content
    calls = [(each.name, each.arguments) for each in delivered if isinstance(each, ToolCallEnd)]
    assert calls == [(each.name, each.arguments) for each in result.tool_call_requests]
    return text, calls, [each.error for each in delivered if isinstance(each, ToolCallFailed)]


@settings(max_examples=100, deadline=None)
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


@pytest.mark.parametrize(
    "unit",
    [
        *("</think><tool_call>x", "<tool_call>", '{"name": "add", "arguments": {"a": [', "[", "{", "<", "```json\n"),
        *("<function=add><parameter=a>1", '"<tool_call>" ', "<tool_call>          ", "</parameter>   ", "a "),
        *(f"{_CALL}\n", "<tool_call>add<arg_key>a"),
    ],
)
def test_a_long_text_is_read_a_few_times_only(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers look at each character once. So what counts is how much text is given to them."""
    given = list[int]()

    class Counting(Candidate):
        def __init__(self, text: str, *rest: Any, **more: Any) -> None:
            given.append(len(text))
            super().__init__(text, *rest, **more)

    def counting(text: str, at: int) -> bool:
        given.append(at)
        return is_quoted(text, at)

    monkeypatch.setattr(scanner, "Candidate", Counting)
    monkeypatch.setattr(scanner, "is_quoted", counting)
    text = (unit * (100_000 // len(unit) + 1))[:100_000]
    for step in (7, 1000, 100_000):
        given.clear()
        _outcome(_ADD, [text[at : at + step] for at in range(0, len(text), step)])
        assert sum(given) < 20 * len(text)


def test_text_flows_until_a_call_may_begin() -> None:
    rescue, shown = Rescue(offered(_ADD)), list[str]()
    for fragment in ("See", " <b", "r> ", "now", ": <tool", "_call>", '{"na', 'me": 1}', " means that", "."):
        batch: list[PredictionEvent] = [LlmPredictionFragment(fragment), PromptProgress(0.5)]
        _, released = received(rescue, [batch])
        shown.append("".join(each.content for each in released if isinstance(each, LlmPredictionFragment)))
        assert PromptProgress(0.5) in released
    assert shown == ["See", " <b", "r> ", "now", "", "", "", "", ': <tool_call>{"name": 1} means that', "."]


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
        ([("reasoning", f"So: {_CALL}")], ("So: ", "", 1)),
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
        batch: list[PredictionEvent] = [
            LlmPredictionFragment(text[at : at + size], reasoning_type=kind)
            for kind, text in parts
            for at in range(0, len(text), size)
        ]
        accumulator, _ = received(Rescue(offered(_ADD)), [batch, [end()]])
        result = accumulator.result()
        assert (result.content, len(result.tool_call_requests)) == expected[1:]
        assert result.reasoning_content == (parts[0][1] if expected[0] is None else expected[0])


def test_tokens_of_the_markup_are_dropped_with_it() -> None:
    tokens = [{"text": "So "}, {"text": "<tool_call>"}]
    fragments: list[PredictionEvent] = [LlmPredictionFragment("So <tool_call>", tokens=tokens)]
    accumulator, _ = received(Rescue(offered(_ADD)), [[*fragments, LlmPredictionFragment(_CALL[11:])], [end()]])
    result = accumulator.result()
    assert (result.content, result.tokens, len(result.tool_call_requests)) == ("So ", ({"text": "So "},), 1)


def test_a_schema_that_is_none_fits_nothing() -> None:
    definition = {"type": "function", "function": {"name": "add", "parameters": {"type": "no type"}}}
    accumulator, _ = received(Rescue(OfferedTools([definition])), [[LlmPredictionFragment(_CALL)], [end()]])
    assert accumulator.result().tool_call_requests == ()
