"""The row `cache`: what of the earlier turns comes from the prompt cache."""

from collections.abc import Sequence

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.certify.serving import CACHE
from tests.client.certify.canned import CannedModel, observed, response, row_of

THINKS = {"when": {"last": "^Name word 1|^Now name word"}, "then": [{"reasoning": "A list."}, {"text": "River."}]}
REJECTS = {"when": {"role": "tool"}, "then": [{"error": "no tools"}]}


def test_a_good_model_reuses_each_turn_and_each_tool_result() -> None:
    row = row_of("cache")
    assert [(each.part, each.outcome) for each in row.observations] == [
        *[("turn", "reused")] * 9,
        *[("tool result", "reused")] * 4,
    ]
    assert row.share == 1
    assert "of the earlier tokens (" in row.summary
    assert row.summary.endswith(" came from the cache; reused 13")
    assert row.advice is None


def test_a_model_that_reasons_is_asked_within_the_tokens_of_the_row() -> None:
    row = row_of("cache", THINKS)
    assert [each.outcome for each in row.observations if each.part == "thoughts"] == ["reused"] * 4
    assert row.unasked == 0


def test_a_model_that_always_reasons_gets_no_tokens_for_it_where_the_response_does_not_matter() -> None:
    model = CannedModel([response(cached=100, thought="A list.")])
    observed(CACHE, "turn", model)
    assert model.limits == [8] * 10


def test_the_thoughts_are_in_the_messages_that_go_back() -> None:
    model = CannedModel([response(cached=100, thought="A list.")])
    observed(CACHE, "thoughts", model)
    assert isinstance(model.history, lms.Chat)
    answers = [message for message in model.history.messages if message.role == "assistant"]
    assert [part.type for answer in answers for part in answer.content] == ["reasoning", "text"] * len(answers)


def test_a_model_that_rejects_tool_results_is_asked_once() -> None:
    row = row_of("cache", REJECTS)
    rejected = [each for each in row.observations if each.part == "tool result"]
    assert [each.outcome for each in rejected] == ["rejected"] * 4
    assert "no tools" in rejected[0].detail


@pytest.mark.parametrize(("cached", "outcome"), [(80, "reused"), (79, "lost"), (0, "lost"), (None, "not reported")])
def test_most_of_the_turn_before_must_come_from_the_cache(cached: int | None, outcome: str) -> None:
    model, expected = CannedModel([response(cached=cached)]), (outcome, float(outcome == "reused"))
    assert observed(CACHE, "turn", model) == [expected] * 9
    assert observed(CACHE, "tool result", model) == [expected] * 4
    assert observed(CACHE, "thoughts", model) == []
    assert observed(CACHE, "thoughts", CannedModel([response(cached=cached, thought="Hm.")])) == [expected] * 4


@pytest.mark.parametrize(
    ("lost", "advice"),
    [
        ([], None),
        (["thoughts"], 'send_reasoning="always" sends thoughts as they are in the cache'),
        (
            ["turn", "thoughts"],
            "max_parallel_predictions=1 keeps conversations in one cache, and keep_warm=True the system prompt",
        ),
    ],
)
def test_the_line_of_the_card(lost: Sequence[str], advice: str | None) -> None:
    parts = ("turn", "tool result", "thoughts")
    observations = [
        lms.Observation(
            case=part,
            kind="verdict",
            outcome="lost" if part in lost else "reused",
            detail="10 of 100 tokens" if part in lost else "100 of 100 tokens",
        )
        for part in parts
    ]
    summary = CACHE.summarize(observations)
    assert summary.advice == advice
    cached = 300 - 90 * len(lost)
    assert summary.text.startswith(f"{cached // 3} % of the earlier tokens ({cached} of 300) came from the cache; ")


def test_the_line_of_a_server_that_does_not_report_it() -> None:
    summary = CACHE.summarize([lms.Observation(case="turn", kind="verdict", outcome="not reported")] * 9)
    assert summary == ("not reported 9", None)
