"""The row `reasoning` of a card."""

from collections import Counter
from typing import Any

import pytest

from tests.client.certify.canned import row_of
from tests.support.certified.rules import LONG_THOUGHT, REASONING

pytestmark = pytest.mark.leaf("certify")


def test_a_good_model_separates_turns_off_and_limits_its_reasoning() -> None:
    row = row_of("reasoning", *REASONING)

    assert row.summary.startswith("separated 4 of 4; off 4 of 4; budget 4 of 4; thoughts kept ")
    assert Counter(each.outcome for each in row.verdicts) == {"separated": 4, "off": 4, "kept": 4}
    assert {each.case: each.outcome for each in row.observations if each.kind == "fact"}["separated/at all"] == "yes"
    assert {each.case for each in row.observations if each.part == "template"} == {
        "template/current call",
        "template/earlier call",
        "template/answer",
    }
    assert row.unasked == 0


def test_a_model_that_does_not_reason_has_no_verdicts() -> None:
    row = row_of("reasoning", {"then": [{"text": "9"}]})

    assert (row.summary, row.advice, row.verdicts) == ("does not reason", None, [])
    assert [each.outcome for each in row.observations if each.part == "separated"] == ["no"]
    assert any(each.part == "template" for each in row.observations)


@pytest.mark.parametrize(
    ("step", "outcomes", "advice"),
    [
        ({"text": f"<think>{LONG_THOUGHT}</think>9"}, ("separated", "reasons anyway", "exceeded"), "reasoning_effort"),
        ({"text": "[THINK]Hm.[/THINK]9"}, ("in the text", "reasons anyway", "in the text"), "reasoning_parsing"),
        (
            {"text": "Hm.__LM_STUDIO_INTERNAL_LSEP_SYNTHETIC_REASONING_END_1f__9"},
            ("in the text", "reasons anyway", "in the text"),
            "reasoning_parsing",
        ),
        ({"text": "<think>Hm.</think>9"}, ("separated", "reasons anyway", "kept"), "reasoning_effort"),
    ],
)
def test_reasoning_that_is_not_as_requested_is_seen(
    step: dict[str, Any], outcomes: tuple[str, str, str], advice: str
) -> None:
    row = row_of("reasoning", {"then": [step]})

    separated, off, budget = outcomes
    assert Counter((each.part, each.outcome) for each in row.verdicts) == {
        ("separated", separated): 4,
        ("off", off): 4,
        ("budget", budget): 4,
    }
    assert advice in (row.advice or "")


def test_a_model_that_reasons_now_and_then_is_seen() -> None:
    row = row_of("reasoning", {"when": {"last": "A farmer"}, "then": [{"reasoning": "Hm."}, {"text": "9"}]})

    assert row.summary.startswith("separated 1 of 4; off 4 of 4; budget 4 of 4 (none 3); ")


def test_what_the_server_rejects_is_seen() -> None:
    row = row_of("reasoning", {"then": [{"error": "this model cannot reason"}]})

    assert [(each.case, each.outcome) for each in row.verdicts] == [
        (part, "rejected") for part in ("separated", "off", "budget")
    ]
    assert "cannot reason" in row.verdicts[0].detail


def test_a_quick_card_finds_out_whether_it_reasons() -> None:
    row = row_of("reasoning", *REASONING, quick=True)

    assert (row.summary, row.unasked) == ("separated 4 of 4", 0)
