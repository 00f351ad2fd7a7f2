"""The shortest instances of JSON schemas.

Each schema is made together with a check of its own, so that nothing here trusts the code that is tested.
"""

import json
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.scripted.schema import shortest_instance

Checked: TypeAlias = tuple[dict[str, Any], Callable[[Any], bool]]
"""A schema, and whether a value is an instance of it."""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@st.composite
def integers(draw: st.DrawFn) -> Checked:
    low, step = draw(st.integers(-50, 50)), draw(st.integers(1, 7))
    high = low + draw(st.integers(8, 40))
    schema = {"type": "integer", "exclusiveMinimum": low, "maximum": high, "multipleOf": step}
    return schema, lambda value: _whole(value) and low < value <= high and value % step == 0


@st.composite
def numbers(draw: st.DrawFn) -> Checked:
    low = draw(st.integers(-50, 50)) / 4
    high = low + draw(st.integers(1, 8)) / 8
    schema = {"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": high}
    return schema, lambda value: isinstance(value, int | float) and low < value < high


@st.composite
def strings(draw: st.DrawFn) -> Checked:
    low = draw(st.integers(0, 9))
    high = low + draw(st.integers(0, 9))
    schema = {"type": "string", "minLength": low, "maxLength": high}
    return schema, lambda value: isinstance(value, str) and low <= len(value) <= high


@st.composite
def choices(draw: st.DrawFn) -> Checked:
    values = draw(st.lists(st.none() | st.booleans() | st.integers() | st.text(), min_size=1, max_size=4))
    constant = draw(st.booleans())
    allowed = values[:1] if constant else values
    schema = {"const": values[0]} if constant else {"enum": values}
    return schema, lambda value: any(value == one and type(value) is type(one) for one in allowed)


def arrays(inner: st.SearchStrategy[Checked]) -> st.SearchStrategy[Checked]:
    @st.composite
    def build(draw: st.DrawFn) -> Checked:
        schema, fits = draw(inner)
        low = draw(st.integers(0, 3))
        high = low + draw(st.integers(0, 3))
        return {
            "type": "array",
            "items": schema,
            "minItems": low,
            "maxItems": high,
        }, lambda value: isinstance(value, list) and low <= len(value) <= high and all(map(fits, value))

    return build()


def objects(inner: st.SearchStrategy[Checked]) -> st.SearchStrategy[Checked]:
    @st.composite
    def build(draw: st.DrawFn) -> Checked:
        members = draw(st.dictionaries(st.text(max_size=5), inner, max_size=4))
        required = draw(st.lists(st.sampled_from(sorted(members)), unique=True)) if members else []
        least = draw(st.integers(0, len(members)))
        schema = {
            "type": "object",
            "properties": {name: member for name, (member, _) in members.items()},
            "required": required,
            "minProperties": least,
            "additionalProperties": False,
        }
        return (
            schema,
            lambda value: (
                isinstance(value, dict)
                and set(required) <= value.keys() <= members.keys()
                and len(value) >= least
                and all(members[name][1](member) for name, member in value.items())
            ),
        )

    return build()


def unions(inner: st.SearchStrategy[Checked]) -> st.SearchStrategy[Checked]:
    @st.composite
    def build(draw: st.DrawFn) -> Checked:
        parts = draw(st.lists(inner, min_size=1, max_size=3))
        keyword = draw(st.sampled_from(["anyOf", "oneOf"]))
        return {keyword: [schema for schema, _ in parts]}, lambda value: any(fits(value) for _, fits in parts)

    return build()


SCHEMAS = st.recursive(
    integers() | numbers() | strings() | choices(),
    lambda inner: arrays(inner) | objects(inner) | unions(inner),
    max_leaves=8,
)


@pytest.mark.slow
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SCHEMAS)
def test_what_is_made_of_a_schema_is_an_instance_of_it(checked: Checked) -> None:
    schema, fits = checked
    value = shortest_instance(schema)
    assert fits(value)
    assert json.loads(json.dumps(value)) == value


@pytest.mark.slow
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(SCHEMAS, min_size=1, max_size=3))
def test_references_are_resolved(parts: list[Checked]) -> None:
    names = [f"part/{number}" for number in range(len(parts))]
    schema = {
        "$defs": {name: part for name, (part, _) in zip(names, parts, strict=True)},
        "type": "object",
        "properties": {name: {"$ref": f"#/$defs/{name.replace('/', '~1')}"} for name in names},
        "required": names,
    }
    value = shortest_instance(schema)
    assert all(fits(value[name]) for name, (_, fits) in zip(names, parts, strict=True))


@pytest.mark.parametrize(
    ("schema", "instance"),
    [
        ({}, 0),
        (True, 0),
        ({"type": "object"}, {}),
        ({"type": "array"}, []),
        ({"type": "null"}, None),
        ({"type": "boolean"}, True),
        ({"type": "integer"}, 0),
        ({"type": "integer", "minimum": 3, "maximum": 9}, 3),
        ({"type": "integer", "exclusiveMaximum": -3}, -4),
        ({"type": "integer", "multipleOf": 2.5, "minimum": 1}, 5),
        ({"type": "number", "multipleOf": 0.1, "exclusiveMinimum": 0.2}, 0.3),
        ({"type": "number", "minimum": 0.5, "maximum": 0.5}, 0.5),
        ({"type": ["string", "null"]}, ""),
        ({"type": ["integer", "null"], "minimum": 10000}, None),
        ({"type": ["integer", "null"], "minimum": 1, "maximum": 0}, None),
        ({"properties": {"a": {}}, "required": ["a"]}, {"a": 0}),
        ({"items": {"type": "null"}, "minItems": 2}, [None, None]),
        ({"minLength": 2}, "aa"),
        ({"minimum": 7}, 7),
        ({"type": "object", "required": ["a", "a"], "minProperties": 3}, {"a": 0, "member0": 0, "member1": 0}),
        ({"type": "object", "properties": {"b": {"const": 1}}, "minProperties": 1}, {"b": 1}),
        ({"type": "object", "required": ["x"], "additionalProperties": {"type": "string"}}, {"x": ""}),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "minItems": 3}, [1, 2, 0]),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "minItems": 1}, [1]),
        ({"type": "array", "items": {"enum": ["b", "c"]}, "minItems": 2, "uniqueItems": True}, ["b", "c"]),
        ({"type": "array", "items": True, "minItems": 1, "uniqueItems": True}, [0]),
        (
            {
                "type": "array",
                "items": {"$ref": "#/$defs/color"},
                "minItems": 2,
                "uniqueItems": True,
                "$defs": {"color": {"enum": ["red", "green"]}},
            },
            ["red", "green"],
        ),
        ({"allOf": [True, {"type": "null"}]}, None),
        ({"type": "string", "format": "date"}, "2000-01-01"),
        ({"type": "string", "format": "no-such-format"}, ""),
        ({"type": "string", "pattern": "^[a-c]*$"}, ""),
        ({"type": "string", "pattern": "^[a-c]*$", "minLength": 3}, "aaa"),
        ({"type": "string", "pattern": r"^\d{4}$", "default": 3, "examples": ["20", "2026"]}, "2026"),
        ({"type": "string", "pattern": r"^\d+$", "default": "7", "examples": ["2026"]}, "7"),
        ({"enum": ["long text", 12, None]}, 12),
        ({"allOf": [{"maxLength": 3, "title": "A"}, {"minLength": 3, "title": "B"}], "type": "string"}, "aaa"),
        ({"const": 3, "enum": [2, 3]}, 3),
        ({"anyOf": [{"not": {}}, {"const": "fine"}]}, "fine"),
        ({"type": "string", "pattern": "a", "anyOf": [{"pattern": "b"}, {"minLength": 2}]}, "aa"),
        ({"anyOf": [False, {"type": "integer", "minimum": 2, "maximum": 1}, {"const": "fine"}]}, "fine"),
        (
            {
                "$ref": "#/$defs/node",
                "$defs": {
                    "node": {
                        "type": "object",
                        "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                        "required": ["next"],
                    }
                },
            },
            {"next": None},
        ),
    ],
)
def test_the_shortest_instance_of_a_schema(schema: Any, instance: Any) -> None:
    value = shortest_instance(schema)
    assert (value, type(value)) == (instance, type(instance))


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (False, "allows nothing"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "no number lies within"),
        ({"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 1}, "no number lies within"),
        ({"type": "integer", "multipleOf": 0}, "multipleOf is 0"),
        ({"type": "string", "minLength": 2, "maxLength": 1}, "must be of 2 characters"),
        ({"type": "string", "minLength": 10**9}, "must be of 1000000000 characters"),
        ({"type": "string", "format": "date", "maxLength": 3}, "no string of its length fits 'date'"),
        ({"type": "string", "pattern": "^a$", "minLength": 2, "default": "a"}, "needs a 'default' or 'examples'"),
        ({"type": "string", "pattern": "a", "minLength": 101}, "needs a 'default' or 'examples'"),
        ({"type": "string", "pattern": "(?=a)b"}, "is not supported"),
        ({"type": "string", "pattern": "("}, "is not supported"),
        ({"type": "array", "minItems": 2, "maxItems": 1}, "2 parts are more than 1"),
        ({"type": "array", "minItems": 10**9}, "1000000000 parts are more than 100000"),
        (
            {"type": "array", "items": {"type": "null"}, "minItems": 2, "uniqueItems": True},
            "2 different items need an 'enum'",
        ),
        ({"type": "array", "items": False, "minItems": 1}, "allows nothing"),
        ({"type": "object", "required": ["a", "b"], "maxProperties": 1}, "2 parts are more than 1"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "allows nothing"),
        ({"type": "object", "minProperties": 10**9}, "1000000000 parts are more than 100000"),
        ({"type": "array", "minItems": 3, "uniqueItems": True}, "3 different items need an 'enum'"),
        ({"type": "nothing"}, "allows nothing"),
        ({"enum": []}, "allows nothing"),
        ({"anyOf": []}, "allows nothing"),
        ({"anyOf": [False, {"not": {}}]}, "'not' is not supported"),
        ({"not": {"type": "string"}}, "'not' is not supported"),
        ({"if": {}, "then": {}}, "'if' is not supported"),
        ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "'pattern' stands at two places"),
        ({"allOf": [{"type": "string"}, False]}, "allows nothing"),
        ({"anyOf": [{"minimum": 1}], "minimum": 2}, "'minimum' stands at two places"),
        ({"$ref": "#"}, "contains itself without end"),
        ({"$ref": "#/$defs/missing"}, "points nowhere"),
        ({"$ref": "other.json"}, "lies outside"),
        ({"type": "object", "required": 3}, "not a valid one"),
        ({"type": "number", "minimum": 10**400, "multipleOf": 0.3}, "not a valid one"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "contains itself without end"),
        (3, "allows nothing"),
    ],
)
def test_a_schema_without_an_instance_is_rejected_with_the_reason(schema: Any, reason: str) -> None:
    with pytest.raises(EngineError, match="does not support this JSON schema") as caught:
        shortest_instance(schema)
    assert reason in caught.value.title
    assert caught.value.display_data is not None
    assert caught.value.display_data["code"] == "generic.engineDoesNotSupportFeature"


def test_a_deeply_nested_constant_is_rejected() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(EngineError, match="nested more than 60 levels deep"):
        shortest_instance({"const": value})
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
    colors: set[Literal["red", "green"]] = Field(min_length=2)
    size: tuple[int, float] = Field()
    share: float = Field(gt=0, lt=1)
    notes: dict[str, int] = Field(min_length=1)
    next: "Home | None"


def test_schemas_of_pydantic_are_met() -> None:
    home = Home.model_validate(shortest_instance(Home.model_json_schema()))
    assert home.next is None
    assert home.colors == {"red", "green"}
    Dog.model_validate(shortest_instance(Dog.model_json_schema()))
