"""Instances of JSON schemas."""

from contextlib import nullcontext
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from lmstudio_integrations.emulator.engines.base import EngineError
from lmstudio_integrations.emulator.engines.scripted.schema import Schema, instance_of


@pytest.mark.parametrize(
    ("schema", "instance"),
    [
        ({}, 0),
        ({"type": "boolean"}, True),
        ({"type": "integer", "minimum": 3, "maximum": 9}, 3),
        ({"type": "integer", "exclusiveMaximum": -3}, -4),
        ({"type": "number", "multipleOf": 0.5, "exclusiveMinimum": 0.5}, 1),
        ({"type": "number", "minimum": 0.5, "maximum": 0.5}, 0.5),
        ({"type": ["string", "null"]}, ""),
        ({"type": ["integer", "null"], "minimum": 10000}, 10000),
        ({"properties": {"a": {}}, "required": ["a"]}, {"a": 0}),
        ({"type": "object", "properties": {"a": {}}}, {}),
        ({"items": {"type": "null"}, "minItems": 2}, [None, None]),
        ({"minLength": 2}, "aa"),
        ({"type": "object", "required": ["a", "a"], "minProperties": 3}, {"a": 0, "member0": 0, "member1": 0}),
        ({"type": "object", "required": ["x"], "additionalProperties": {"type": "string"}}, {"x": ""}),
        ({"type": "object", "required": ["x"], "properties": {"x": {"const": 1}, "y": {}}}, {"x": 1}),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "minItems": 3}, [1, 2, 0]),
        ({"type": "array", "items": True, "minItems": 1, "uniqueItems": True}, [0]),
        ({"allOf": [True, {"type": "null"}]}, None),
        ({"type": "string", "format": "date"}, "2000-01-01"),
        ({"type": "string", "format": "no-such-format"}, ""),
        ({"type": "string", "pattern": "^[a-c]*$", "minLength": 3}, "aaa"),
        ({"type": "string", "pattern": r"^\d{4}$", "default": 3, "examples": ["20", "2026"]}, "2026"),
        ({"enum": ["long text", 12, None]}, "long text"),
        ({"allOf": [{"maxLength": 3, "title": "A"}, {"minLength": 3, "title": "B"}], "type": "string"}, "aaa"),
        ({"const": 3, "enum": [2, 3]}, 3),
        ({"type": "string", "pattern": "a", "minLength": 101}, "a" * 101),
        ({"anyOf": [{"not": {}}, {"const": "fine"}]}, "fine"),
        ({"anyOf": [False, {"type": "integer", "minimum": 2, "maximum": 1}, {"const": "fine"}]}, "fine"),
    ],
)
def test_a_schema_is_met_in_the_plainest_way(schema: Any, instance: Any) -> None:
    value = instance_of(schema)
    assert (value, type(value)) == (instance, type(instance))


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (False, "allows nothing"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "no number near its bounds [2, 1]"),
        ({"type": "integer", "multipleOf": 2.5, "minimum": 1}, "no number near its bounds [1]"),
        ({"type": "integer", "multipleOf": 0}, "not a valid one"),
        ({"type": "string", "minLength": 10**9}, "must be of 1000000000 characters"),
        ({"type": "string", "format": "date", "maxLength": 3}, "'2000-01-01' is too long"),
        ({"type": "string", "pattern": "^a$", "minLength": 2, "default": "a"}, "needs a 'default' or 'examples'"),
        ({"type": "string", "pattern": "(?=a)b"}, "not a valid one"),
        ({"type": "array", "minItems": 2, "maxItems": 1}, "is too long"),
        (
            {"type": "array", "items": {"enum": ["b", "c"]}, "minItems": 2, "uniqueItems": True},
            "['b', 'b'] has non-unique elements",
        ),
        ({"type": "object", "required": ["a", "b"], "maxProperties": 1}, "too many properties"),
        ({"type": "object", "minProperties": 10**9}, "more than 10000 parts"),
        ({"type": "nothing"}, "allows nothing"),
        ({"enum": []}, "no number near its bounds"),
        ({"anyOf": [False, {"not": {}}]}, "no number near its bounds"),
        ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "needs a 'default' or 'examples'"),
        ({"allOf": [{"type": "string"}, False]}, "allows nothing"),
        (
            {"type": "object", "allOf": [{"required": ["a"]}, {"required": ["b"]}]},
            "{'b': 0} is not: 'a' is a required property",
        ),
        ({"$ref": "#"}, "contains itself without end"),
        ({"$ref": "#/$defs/missing"}, "points nowhere"),
        ({"$ref": "other.json"}, "lies outside"),
        ({"type": "object", "required": 3}, "not a valid one"),
        ({"type": "number", "minimum": 10**400, "multipleOf": 0.3}, "not a valid one"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "contains itself without end"),
    ],
)
def test_a_schema_without_an_instance_is_rejected_with_the_reason(schema: Any, reason: str) -> None:
    with pytest.raises(EngineError, match="does not support this JSON schema") as caught:
        instance_of(schema)
    assert reason in caught.value.title
    assert caught.value.display_data is not None
    assert caught.value.display_data["code"] == "generic.engineDoesNotSupportFeature"


@pytest.mark.parametrize(
    ("rules", "is_met"),
    [
        ({"patternProperties": {"^(a+)+$": False}}, True),
        ({"patternProperties": {"^(a+)+!$": False}}, False),
        ({"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}, False),
        ({"patternProperties": {"^(a+)+$": {}}, "unevaluatedProperties": False}, True),  # it is not known
    ],
)
def test_patterns_of_names_are_looked_for_in_linear_time(rules: Schema, is_met: bool) -> None:
    schema = {"type": "object", "required": ["a" * 50 + "!"], **rules}
    with nullcontext() if is_met else pytest.raises(EngineError, match="does not support this JSON schema"):
        instance_of(schema)


def test_a_deeply_nested_constant_is_rejected() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(EngineError, match="nested more than 60 levels deep"):
        instance_of({"const": value})
    while value:  # one by one: freeing all at once would recurse, too
        value = value[0]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=7, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str = Field(pattern=r"^[A-Z][a-z]+$", min_length=3, examples=["Rex"])


class Home(BaseModel):
    pets: list[Cat | Dog] = Field(min_length=2)
    colors: set[Literal["red", "green"]] = Field(min_length=1)
    size: tuple[int, float] = Field()
    share: float = Field(gt=0, lt=1)
    notes: dict[str, int] = Field(min_length=1)
    next: "Home | None"


def test_schemas_of_pydantic_are_met() -> None:
    home = Home.model_validate(instance_of(Home.model_json_schema()))
    assert home.next is None
    assert home.colors == {"red"}
    Dog.model_validate(instance_of(Dog.model_json_schema()))
