"""The row `tools`: what a response is, and what helps."""

import json
from collections.abc import Callable

import pytest

from lmstudio_integrations.client.certify.tools import REQUESTS
from tests.client.certify.canned import row_of
from tests.support.certified.rules import Rule, as_text, calling, tools, with_texts

Change = Callable[[Rule], list[Rule]]
"""Returns the steps that take the place of a call."""


@pytest.mark.parametrize(
    ("change", "outcome", "advice"),
    [
        (as_text, "in the text", "rescue_tool_calls=True"),
        (lambda step: [{**step, "malformed": '{"city": '}], "malformed", "another model"),
        (lambda _step: [{"text": "I cannot."}], "no call", "another model"),
        (lambda step: [{**step, "tool": "other"}], "wrong tool", "another model"),
        (lambda step: [{**step, "arguments": {}}], "wrong arguments", "another model"),
    ],
)
def test_a_failure_is_named_by_what_the_model_did(change: Change, outcome: str, advice: str) -> None:
    row = row_of("tools", *calling(change), quick=True)
    assert row.advice is not None
    assert advice in row.advice
    found = {each.outcome for each in row.failures}
    assert found - {"wrong text"} == {outcome}
    assert row.share < 0.5


def test_a_good_model_has_all_of_them_right() -> None:
    row = row_of("tools", *tools())
    assert (row.summary, row.advice, row.failures) == ("40 of 40 right", None, [])
    assert len({each.case.partition("/")[0] for each in row.observations}) == 9


def test_calls_that_can_be_mended_are_counted_apart() -> None:
    row = row_of("tools", *calling(with_texts))
    mended = [each for each in row.failures if each.outcome == "mended"]
    assert len(mended) == len(row.failures) > 4
    assert json.loads(mended[0].detail) == [{"set_timer": {"minutes": "12"}}]
    assert row.advice is not None
    assert "repair_tool_calls=True" in row.advice


def test_a_call_where_none_is_needed_is_a_failure() -> None:
    row = row_of("tools", {"when": {}, "then": [{"tool": "get_weather", "arguments": {"city": "Oslo"}}]})
    outcomes = {request.name: each.outcome for request, each in zip(REQUESTS, row.observations, strict=True)}
    assert outcomes["one/1"] == "right"
    assert outcomes["one/2"] == "wrong tool"
    assert {outcomes[request.name] for request in REQUESTS if not request.calls} == {"needless call"}
