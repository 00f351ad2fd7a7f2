"""From a format to the request, and from the text of a response to its value."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter
from typing_extensions import TypedDict

from lmstudio_integrations.errors import LMStudioStructuredOutputError, LMStudioValueError
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import PredictionEnd, PredictionResult
from lmstudio_integrations.types.structured import fits, json_object, read_as, read_response, reject_text


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
    ],
)
def test_only_an_object_is_an_object(text: str, value: Any) -> None:
    assert json_object(text) == value


@pytest.mark.parametrize(
    ("model", "value"), [(City, City(name="Oslo")), (Town, Town("Oslo")), (Village, {"name": "Oslo"})]
)
def test_a_response_is_an_instance_of_whatever_pydantic_validates(model: type[Any], value: Any) -> None:
    assert read_as(model, '{"name": "Oslo"}', "eosFound") == value
    result = PredictionResult('{"name": "Oslo"}', "", PredictionEnd({}, {}, {}, {}))
    assert result.parsed_as(model) == value


@pytest.mark.parametrize("model", [OwnSchema, Unfinished, 5])
def test_a_type_that_pydantic_does_not_know_is_rejected(model: Any) -> None:
    with pytest.raises(LMStudioValueError, match="parsed_as needs a pydantic class"):
        read_as(model, "{}", "eosFound")


def test_a_response_that_was_cut_off_names_the_remedy() -> None:
    with pytest.raises(LMStudioStructuredOutputError, match=r"the value: .* larger context length"):
        read_as(City, '{"name": "Os', "contextLengthReached")


def test_a_parser_that_recurses_too_deep_finds_no_value() -> None:
    with pytest.raises(LMStudioStructuredOutputError, match="nested too deeply"):
        read_response(json.loads, "[" * 100_000, "eosFound")


def test_the_reasons_in_the_message_are_cut() -> None:
    findings = [{"name": ["x" * 100]}] * 10_000
    with pytest.raises(LMStudioStructuredOutputError) as caught:
        read_response(TypeAdapter(list[City]).validate_json, json.dumps(findings), "eosFound")
    assert len(str(caught.value)) < 20_000


@pytest.mark.parametrize("given", [None, {}, int])
def test_only_text_is_no_schema(given: Any) -> None:
    reject_text(given, "a schema")
    with pytest.raises(LMStudioValueError, match=r"a schema must be a class or a dict, not a string; got 'x'"):
        reject_text("x", "a schema")


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
    assert fits(LlmPredictionConfig(structured=structured), text) is expected
