"""The schema of a call of one of several tools."""

from typing import Any

import pytest

from lmstudio_integrations.types._call_schemas import call_schema
from lmstudio_integrations.types._json_schemas import check_references, validator_of

NODE = {"type": "object", "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/Node"}}}
FUNCTIONS: list[dict[str, Any]] = [
    {"name": "walk", "parameters": {"type": "object", "properties": {"at": NODE}, "$defs": {"Node": NODE}}},
    {"name": "again", "parameters": {"type": "object", "properties": {"a": NODE, "b": {"$ref": "#/properties/a"}}}},
    {"name": "itself", "parameters": {"type": "object", "properties": {"$ref": {"$ref": "#"}, "enum": {"$ref": "#"}}}},
    {"name": "data", "parameters": {"type": "object", "properties": {"k": {"enum": [{"$ref": "#/x"}]}}}},
    {"name": "nothing"},
]
FUNCTIONS[1]["parameters"]["$defs"] = {"Node": {"type": "object", "properties": {"value": {"type": "string"}}}}


@pytest.mark.parametrize(
    ("name", "arguments", "fits"),
    [
        ("walk", {"at": {"next": {"value": 1}}}, True),
        ("walk", {"at": {"next": {"value": "1"}}}, False),
        ("again", {"b": {"value": 1, "next": {"value": "of its own definition"}}}, True),
        ("again", {"b": {"next": {"value": 1}}}, False),
        ("itself", {"$ref": {"enum": {}}}, True),
        ("itself", {"enum": 5}, False),
        ("data", {"k": {"$ref": "#/x"}}, True),
        ("nothing", {}, True),
        ("unknown", {}, False),
    ],
)
def test_a_call_keeps_the_references_of_each_tool(name: str, arguments: dict[str, Any], fits: bool) -> None:
    schema = call_schema(FUNCTIONS)
    check_references(schema, "the schema of a call")
    validator = validator_of(schema)
    assert validator.is_valid({"name": name, "arguments": arguments}) is fits
    assert not validator.is_valid({"name": name, "arguments": arguments, "more": 1})
