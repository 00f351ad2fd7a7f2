"""The row `structure` of a card."""

import json
from collections import Counter
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from lmstudio_integrations import Client
from lmstudio_integrations.client.certify.answers import FORMATS, judge
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.client.certify.canned import row_of


class _Opening(BaseModel):
    day: date
    rooms: int = 1


def test_a_good_model_keeps_every_format_and_reasons_before_four_responses_in_one_prediction() -> None:
    with Emulator([ModelEntry(key="good")]) as server, Client(server.address) as client:
        row = client.certify("good", rows=["structure"]).row("structure")
        requests = [record.config for record in server.predictions]

    assert (row.summary, row.advice) == ("28 of 28 valid", None)
    parts = Counter(each.part for each in row.observations)
    assert (parts["reasoning"], parts["streamed"]) == (4, 4)
    assert {each.name for each in FORMATS} < {each.case for each in row.observations}
    assert Counter(config["enableThinking"] for config in requests) == {False: 24, True: 4}
    assert {config["maxTokens"] for config in requests if config["enableThinking"]} == {192}


@pytest.mark.parametrize(
    ("step", "outcome", "advice"),
    [
        ({"text": '```json\n{"name": "Ana", "age": 34}\n```'}, "not JSON", "required_tool_fallback"),
        ({"text": '{"unknown": true}'}, "invalid", "max_attempts"),
        ({"text": f'{{"name": "{"Ana " * 200}'}, "too long", "max_tokens"),
        ({"error": "this grammar is too complex"}, "rejected", "response_format"),
    ],
)
def test_a_response_that_does_not_fit_is_seen(step: dict[str, Any], outcome: str, advice: str) -> None:
    row = row_of("structure", {"when": {"structured": True}, "then": [step]}, quick=True)

    assert {(each.outcome, each.score) for each in row.observations} == {(outcome, 0.0)}
    assert advice in (row.advice or "")
    assert all(each.detail for each in row.failures)


def test_a_tag_that_is_left_after_reasoning_is_no_json() -> None:
    company = {"name": "a", "address": {"street": "a", "city": {"name": "a", "country": "a"}}}
    shape = {"shape": {"kind": "square", "side": 1}}
    rules = [
        {"when": {"last": "Li Wei orders"}, "then": [{"text": '</think>{"by": {"name": "a"}, "product": "a"}'}]},
        {"when": {"last": "The company"}, "then": [{"text": json.dumps(company)}]},
        {"when": {"last": "A square"}, "then": [{"text": f"</think>{json.dumps(shape)}"}]},
    ]
    row = row_of("structure", *rules)

    assert {each.case for each in row.failures} >= {"nested/1", "union/1", "reasoning/1"}
    assert {each.outcome for each in row.failures} == {"not JSON"}


def test_a_stream_that_is_no_json_is_seen() -> None:
    last = FORMATS[4::5][0]
    row = row_of("structure", {"when": {"last": last.prompt[:12]}, "then": [{"text": "no"}, {"text": " JSON"}]})

    assert {each.case: each.detail for each in row.failures} == {last.name: "no JSON", "streamed/1": "no JSON"}


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ('{"day": "2027-05-03", "rooms": 2}', "valid"),
        ('{"day": "2027-05-03"}', "valid"),
        ('{"day": "tomorrow", "rooms": 2}', "invalid"),
        ('{"day": "2027-05-03", "rooms": "2"}', "invalid"),
        ('{"day": "2027-05-03"} Bye.', "not JSON"),
        ("", "not JSON"),
    ],
)
def test_a_text_is_valid_only_if_it_is_json_of_the_types(text: str, outcome: str) -> None:
    assert judge(_Opening, text) == outcome
