"""Arrow columns of a schema."""

from typing import Any, Literal

import pyarrow as pa
import pytest
from pydantic import BaseModel, Field

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.ray._arrow import columns_of


class Part(BaseModel):
    name: str
    weight: float | None = None


class Node(BaseModel):
    value: int
    children: "list[Node]" = []


class Everything(BaseModel):
    text: str
    maybe: str | None
    count: int
    share: float
    number: int | float
    flag: bool
    color: Literal["red", "blue"]
    level: Literal[1, 2]
    tags: list[str]
    parts: list[Part]
    part: Part | None
    extras: dict[str, int]
    number_or_text: int | str
    pair: tuple[int, str]
    anything: Any
    tree: Node
    aliased: str = Field(alias="other name")


PART = pa.struct([("name", pa.string()), ("weight", pa.float64())])
NODE = pa.struct([("value", pa.int64()), ("children", pa.list_(pa.string()))])


def test_each_field_of_a_class_has_the_arrow_type_of_its_values() -> None:
    columns = columns_of(Everything.model_json_schema())
    assert {name: column.type for name, column in columns.items()} == {
        "text": pa.string(),
        "maybe": pa.string(),
        "count": pa.int64(),
        "share": pa.float64(),
        "number": pa.float64(),
        "flag": pa.bool_(),
        "color": pa.string(),
        "level": pa.int64(),
        "tags": pa.list_(pa.string()),
        "parts": pa.list_(PART),
        "part": PART,
        "extras": pa.string(),
        "number_or_text": pa.string(),
        "pair": pa.string(),
        "anything": pa.string(),
        "tree": NODE,
        "other name": pa.string(),
    }


VALUES = [
    ({"type": "string"}, "a", "a"),
    ({"type": "number"}, 1, 1.0),
    ({"type": "integer"}, 2.0, 2),
    ({"type": ["integer", "null"]}, None, None),
    ({"type": ["integer", "number"]}, 1, 1.0),
    ({"enum": ["a", "b", None]}, "a", "a"),
    ({"const": True}, True, True),
    ({"enum": [1, "a"]}, 1, "1"),
    ({"enum": [[1]]}, [1], "[1]"),
    ({"type": "array", "items": {"type": "number"}}, [1, 2], [1.0, 2.0]),
    ({"type": "array", "items": {"type": "number"}}, None, None),
    ({"type": "array"}, [1, "a"], '[1, "a"]'),
    ({"type": "object"}, {"ä": 1}, '{"ä": 1}'),
    ({"type": "object", "properties": {"a": {"type": "number"}}}, {"a": 1, "b": 2}, {"a": 1.0}),
    ({"type": "object", "properties": {"a": {"type": "number"}}}, None, None),
    ({"type": "object", "properties": {"a": {}}, "additionalProperties": {}}, {"a": 1}, {"a": "1"}),
    ({"anyOf": [{"type": "string"}, {"type": "object"}]}, "a", '"a"'),
    ({"anyOf": [{"type": "string"}, {"type": "string"}]}, "a", "a"),
    ({"anyOf": []}, 1, "1"),
    (True, 1, "1"),
    ({"$ref": "#/$defs/missing"}, 1, "1"),
]


@pytest.mark.parametrize(("schema", "value", "expected"), VALUES)
def test_a_value_becomes_one_of_its_column(schema: Any, value: Any, expected: Any) -> None:
    column = columns_of({"properties": {"x": schema}})["x"]
    assert pa.scalar(column.convert(value), type=column.type).as_py() == expected


def test_a_reference_may_be_the_whole_schema() -> None:
    assert columns_of({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"properties": {"x": {"type": "string"}}}}})


@pytest.mark.parametrize("schema", [{"type": "array"}, {"type": "object"}, {"$ref": "#"}, {"$ref": "#/nothing"}])
def test_a_schema_without_properties_has_no_columns(schema: dict[str, Any]) -> None:
    with pytest.raises(LMStudioValueError, match="schema must be that of an object with properties"):
        columns_of(schema)
