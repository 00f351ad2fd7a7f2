"""Outputs of models that should have been calls, and texts that must stay text.

`outputs.jsonl` is rebuilt after outputs in public threads: the same markers and the same defect, with other names and
values. Each has its thread, and the calls that were meant; `null` if no tool may run. `fresh_outputs.jsonl` was
gathered by someone who had not seen the parsers: 42 of its 54 cases were read at the first run, two of them with wrong
arguments. What that taught is mended. `texts.jsonl` has 600 texts that look like calls; the last 100 are explanations.
"""

import json
from pathlib import Path
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions.calls_in_text.read_calls import ReadCalls
from lmstudio_integrations.types._json_schemas import ArgumentSchema
from tests.client.predictions.middlewares import end, passed, plan_with

_FOLDER = Path(__file__).parent
_TOOLS: dict[str, Any] = json.loads((_FOLDER / "tools.json").read_text(encoding="utf-8"))


def cases(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (_FOLDER / name).read_text(encoding="utf-8").splitlines()]


def offered(case: dict[str, Any]) -> list[dict[str, Any]]:
    tools = [{"name": name, "parameters": _TOOLS[name]} for name in case["tools"]]
    return [{"type": "function", "function": tool} for tool in tools]


def events(case: dict[str, Any]) -> list[lms.PredictionEvent]:
    """Return the response as events. Reasoning that a text follows has ended."""
    found: list[lms.PredictionEvent] = []
    if case["reasoning"]:
        found.append(lms.LlmPredictionFragment(case["reasoning"], reasoning_type="reasoning"))
    if case["text"].strip():
        found.append(lms.LlmPredictionFragment(case["text"]))
    return [*found, end()]


def calls_in(case: dict[str, Any]) -> list[dict[str, Any]]:
    accumulator, _ = passed(ReadCalls(plan_with(offered(case))), [events(case)])
    requests = accumulator.result().tool_call_requests
    return [{"name": each.name, "arguments": each.arguments} for each in requests]


UNREAD = {
    "outputs.jsonl": ("qwen-xml-18 qwen-xml-19 qwen-xml-20 granite-07 phi4-06 kimi-02 minimax-05 other-01 other-06"),
    "fresh_outputs.jsonl": "fresh-06 fresh-07 fresh-09 fresh-20 fresh-38 fresh-43 fresh-45",
}
"""The outputs whose calls are not read, by their ids: what was meant is a guess."""


@pytest.mark.parametrize("name", UNREAD)
def test_all_other_calls_are_read_with_the_right_arguments(name: str) -> None:
    meant = [case for case in cases(name) if case["calls"] is not None]
    assert [case["id"] for case in meant if calls_in(case) not in (case["calls"], [])] == []
    assert [case["id"] for case in meant if not calls_in(case)] == UNREAD[name].split()


@pytest.mark.parametrize("name", ["outputs.jsonl", "fresh_outputs.jsonl"])
def test_what_is_cut_off_is_never_run(name: str) -> None:
    cut = [case for case in cases(name) if case["calls"] is None]
    assert cut
    assert [case["id"] for case in cut if calls_in(case)] == []


def test_what_is_read_in_a_text_for_callers_who_check_calls_does_not_fit() -> None:
    misfits = 0
    for case in cases("texts.jsonl"):
        accumulator, _ = passed(ReadCalls(plan_with(offered(case), keeps_misfits=True)), [events(case)])
        calls = accumulator.result().tool_call_requests
        assert all(ArgumentSchema(_TOOLS[each.name], each.name).problems(each.arguments or {}) for each in calls)
        misfits += len(calls)
    assert misfits == 22


def test_texts_stay_as_they_are() -> None:
    texts = cases("texts.jsonl")
    assert len(texts) == 600
    for case in texts:
        accumulator, delivered = passed(ReadCalls(plan_with(offered(case))), [events(case)])
        result = accumulator.result()
        written = case["text"] if case["text"].strip() else ""
        assert (result.content, result.reasoning_content) == (written, case["reasoning"]), case["id"]
        assert not result.tool_call_requests, case["id"]
        assert "".join(e.content for e in delivered if isinstance(e, lms.LlmPredictionFragment)) == (
            case["reasoning"] + written
        )
