"""From a format to the request, and from the text of a response to its value."""

import json
import random
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter
from typing_extensions import TypedDict

import lmstudio_integrations as lms
from lmstudio_integrations.types.structured import (
    check_limits,
    check_max_attempts,
    correction,
    fits,
    json_object,
    partial_json,
    read_as,
    read_response,
    reject_text,
    requests_reasoning,
    response_settings,
    schema_problems,
    with_format,
)


class City(BaseModel):
    name: str


@dataclass
class Town:
    name: str


class Village(TypedDict):
    name: str


class OwnSchema:
    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {}


class Unfinished(BaseModel):
    later: "Later"  # type: ignore[name-defined]  # noqa: F821 - the fault is the point


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (' {"a": [1]}\n', {"a": [1]}),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ("[1]", None),
        ('"a"', None),
        ("null", None),
        ("", None),
        ('{"a": 1} and more', None),
        ('{"a": ' + "[" * 100_000, None),
        ('{"a": ' + "9" * 10_000 + "}", None),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('```\n{"a": 1}\n  ```\n', {"a": 1}),
        ('```{"a": 1}```', {"a": 1}),
        ('```json {"a": 1} ```', {"a": 1}),
        ('Here it is:\n\n```JSON\n{"a": 1}\n```\n\nAnything else?', {"a": 1}),
        ('```json\n{"a": 1}\n```\n\n```json\n{"a": 2}\n```', {"a": 1}),
        ('```json\n{"a": 1}', {"a": 1}),
        ('```json\n{"a": "```py\\nx\\n```"}\n```', {"a": "```py\nx\n```"}),
        ('{"a": "```json\\n{}\\n```"}', {"a": "```json\n{}\n```"}),
        ('```json\n{"a": [1\n```', None),
        ("```json\n[1]\n```", None),
        ("``````", None),
    ],
)
def test_only_an_object_is_an_object(text: str, value: Any) -> None:
    assert json_object(text) == value


@pytest.mark.parametrize(
    ("model", "value"), [(City, City(name="Oslo")), (Town, Town("Oslo")), (Village, {"name": "Oslo"})]
)
def test_a_response_is_an_instance_of_whatever_pydantic_validates(model: type[Any], value: Any) -> None:
    assert read_as(model, '{"name": "Oslo"}', "eosFound") == value
    result = lms.PredictionResult('{"name": "Oslo"}', "", lms.PredictionEnd({}, {}, {}, {}))
    assert result.parsed_as(model) == value


@pytest.mark.parametrize("model", [OwnSchema, Unfinished, 5])
def test_a_type_that_pydantic_does_not_know_is_rejected(model: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match="parsed_as needs a pydantic class"):
        read_as(model, "{}", "eosFound")


def test_a_response_that_was_cut_off_names_the_remedy() -> None:
    with pytest.raises(lms.LMStudioStructuredOutputError, match=r"the value: .* larger context length"):
        read_as(City, '{"name": "Os', "contextLengthReached")


def test_a_parser_that_recurses_too_deep_finds_no_value() -> None:
    with pytest.raises(lms.LMStudioStructuredOutputError, match="nested too deeply"):
        read_response(json.loads, "[" * 100_000, "eosFound")


def test_the_reasons_in_the_message_are_cut() -> None:
    findings = [{"name": ["x" * 100]}] * 1_000
    with pytest.raises(lms.LMStudioStructuredOutputError) as caught:
        read_response(TypeAdapter(list[City]).validate_json, json.dumps(findings), "eosFound")
    assert len(str(caught.value)) < 20_000


@pytest.mark.parametrize("given", [None, {}, int])
def test_only_text_is_no_schema(given: Any) -> None:
    reject_text(given, "a schema")
    with pytest.raises(lms.LMStudioValueError, match=r"a schema must be a class or a dict, not a string; got 'x'"):
        reject_text("x", "a schema")


SCHEMAS: list[Any] = [
    {},
    True,
    {"title": "Any", "nullable": True, "example": 1},
    {"title": "Any", "description": "Any JSON.", "$comment": "it is so", "x-order": 1, "definitions": {}},
    {"$ref": "#/$defs/City", "$defs": {"City": {"type": "string"}}},
    {"anyOf": [{"type": "string"}, {"type": "null"}], "nullable": True},
    {"enum": ["a", 1]},
    {"const": None, "name": "Nothing"},
    {"name": "Person", "strict": True, "type": "object"},
    {"type": ["string", "null"]},
    {"minimum": 3, "unit": "m"},
    {"properties": {"name": {"type": "string"}}, "propertyOrdering": ["name"]},
]
NO_SCHEMAS: list[dict[Any, Any]] = [
    {"name": "str"},
    {"title": "str", "year": "int"},
    {"name": {"type": "string"}},
    {"name": str, 1: int},
    {"name": "f", "input_schema": {"type": "object"}},
]


def test_a_dict_is_a_schema_unless_it_has_other_members_and_none_that_limits_a_value() -> None:
    for schema in SCHEMAS:
        check_limits(schema)
    for given in NO_SCHEMAS:
        says = "is not a JSON schema: none of its members limits"
        advice = (
            "pass its input_schema alone, or a pydantic" if "input_schema" in given else "write .* or pass a pydantic"
        )
        with pytest.raises(lms.LMStudioValueError, match=f"{says} what the model writes; {advice}"):
            check_limits(given)


@pytest.mark.parametrize("schema", [True, False])
def test_a_schema_may_be_true_or_false(schema: bool) -> None:
    wire: dict[str, Any] = {"type": "json", "jsonSchema": schema}
    assert response_settings(wire, dict) == {"structured": wire}
    assert with_format(wire, lms.LlmPredictionConfig(), check=True).structured == wire


@pytest.mark.parametrize(
    ("structured", "text", "expected"),
    [
        ({"type": "json", "jsonSchema": City.model_json_schema()}, '{"name": "Oslo"}', True),
        ({"type": "json", "jsonSchema": City.model_json_schema()}, '{"name": 1}', False),
        ({"type": "json", "jsonSchema": City.model_json_schema()}, "Oslo", False),
        ({"type": "json"}, "[1]", True),
        ({"type": "json", "jsonSchema": {"$ref": "http://127.0.0.1:1/schema"}}, "1", False),  # it is not downloaded
        ({"type": "gbnf", "gbnfGrammar": "root ::= [0-9]"}, "1", False),
        (None, "1", False),
    ],
)
def test_a_text_fits_if_the_schema_is_known_to_allow_it(structured: Any, text: str, expected: bool) -> None:
    assert fits(lms.LlmPredictionConfig(structured=structured), text) is expected


@pytest.mark.parametrize(
    ("schema", "value", "problems"),
    [
        ({"properties": {"a": {"type": "array", "items": {"type": "integer"}}}}, {"a": [1, "x"]}, "a.1: 'x' is not of"),
        ({"type": "object"}, [], "the value: [] is not of type 'object'"),
        ({"required": ["a", "b"]}, {}, "the value: 'a' is a required property; the value: 'b' is a required property"),
        ({"multipleOf": 2}, 3, "the value: 3 is not a multiple of 2"),
        ({"multipleOf": 0.01}, 19.99, ""),
        ({"pattern": r"^\p{L}+$"}, "Zoë", ""),
        ({"type": "any"}, 1, ""),
        ({"$ref": "http://127.0.0.1:1/schema"}, 1, ""),
        ({"default": {1}}, 1, ""),
    ],
)
def test_the_problems_of_a_value_are_those_that_jsonschema_finds(schema: Any, value: Any, problems: str) -> None:
    assert schema_problems(schema, value).startswith(problems)
    assert bool(schema_problems(schema, value)) == bool(problems)


@pytest.mark.parametrize("given", [0, -1, True, 1.5, "2", None])
def test_a_number_of_attempts_is_a_positive_integer(given: Any) -> None:
    check_max_attempts(1)
    with pytest.raises(lms.LMStudioValueError, match=f"max_attempts must be an integer of at least 1; got {given!r}"):
        check_max_attempts(given)


def test_a_correction_names_the_problem_and_does_not_repeat_the_response() -> None:
    with pytest.raises(lms.LMStudioStructuredOutputError) as caught:
        read_as(City, '{"name": 1}', "eosFound")
    assert "the model wrote" in str(caught.value)
    assert correction(caught.value) == (
        "Your response was rejected: the response is not the structured output that was requested: name: Input should "
        "be a valid string (stop reason eosFound)\n\nRespond again with a corrected response."
    )


def test_half_of_a_surrogate_pair_is_a_typed_error_and_no_end_of_partial_values() -> None:
    chance = random.Random(1)
    parts = ['{"name": "', "Os\u00f8", '"', "\ud83d", "\ude00", "\\ud83d", "\n", "}", " ", "\U0001f600", "{"]
    for _ in range(300):
        text = '{"name": "' * chance.randrange(2) + "".join(chance.choices(parts, k=chance.randrange(1, 9)))
        partial_json(text)
        json_object(text)
        for parse in (json.loads, City.model_validate_json):
            try:
                read_response(parse, text, "eosFound")
            except lms.LMStudioStructuredOutputError as error:
                str(error).encode()
    with pytest.raises(lms.LMStudioStructuredOutputError, match="half of a surrogate pair at character 11"):
        read_as(City, '{"name": "O\ud83d"}', "eosFound")
    assert partial_json('{"name": "O\ud83d", "size": 3') == {"name": "O\ufffd", "size": 3}
    assert partial_json('{"name": "\ud83d\ude00') == {"name": "\U0001f600"}


REASONING_ONLY = {
    "the model only reasoned": "I think of Oslo.",
    "the JSON in the reasoning does not fit": '{"city": "Oslo"}',
}


@pytest.mark.parametrize("expected", REASONING_ONLY)
def test_an_error_about_a_response_that_is_all_reasoning_says_so(expected: str) -> None:
    with pytest.raises(lms.LMStudioStructuredOutputError, match=f"the text is empty, and {expected}") as caught:
        read_as(City, " ", "eosFound", REASONING_ONLY[expected])
    assert (caught.value.text, REASONING_ONLY[expected] in str(caught.value)) == (" ", True)
    with pytest.raises(lms.LMStudioStructuredOutputError, match="raise max_tokens"):
        read_as(City, "", "maxPredictedTokensReached", REASONING_ONLY[expected])


CUSTOM = "ext.virtualModel.customField.acme.deep."

REASONING: list[tuple[dict[str, Any], bool]] = [
    ({}, False),
    ({"enable_thinking": True}, True),
    ({"enable_thinking": False}, False),
    ({"raw": {f"{CUSTOM}enableThinking": True}}, True),
    ({"raw": {f"{CUSTOM}enableThinking": False}}, False),
    ({"raw": {f"{CUSTOM}reasoningEffort": "low"}}, True),
    ({"raw": {f"{CUSTOM}reasoningEffort": "none"}}, False),
    ({"raw": {"acme.reasoningEffort": "low"}}, False),
]


@pytest.mark.parametrize(("settings", "expected"), REASONING)
def test_reasoning_is_requested_by_a_setting_or_a_custom_field(settings: dict[str, Any], expected: bool) -> None:
    assert requests_reasoning(lms.LlmPredictionConfig(**settings)) == expected
