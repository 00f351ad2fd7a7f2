"""References of a JSON schema must have a target in it, wherever that is."""

from typing import Any

import pytest

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._json_schemas import check_references, wire_tool
from lmstudio_integrations.types.functions import ToolFunctionDef

DEFINITIONS = {"$defs": {"A/B": {"type": "string"}, "~": {"anyOf": [{"type": "null"}]}, "Ä": {}}}


@pytest.mark.parametrize(
    "reference",
    [
        "#",
        "#/$defs/A~1B",
        "#/$defs/~0",
        "#/$defs/~0/anyOf/0",
        "#/$defs/%C3%84",
        "https://example.org/schema",
        "#anchor",
    ],
)
def test_a_reference_with_a_target_is_accepted(reference: str) -> None:
    check_references({**DEFINITIONS, "properties": {"a": {"items": [{"$ref": reference}]}}}, "the schema")


@pytest.mark.parametrize(
    "reference", ["#/$defs/C", "#/definitions/A", "#/$defs/~0/anyOf/1", "#/$defs/~0/anyOf/x", "#/$defs/A~1B/type/a"]
)
def test_a_reference_without_a_target_is_an_error(reference: str) -> None:
    schema = {**DEFINITIONS, "properties": {"a": {"items": [{"$ref": reference}]}}}
    with pytest.raises(LMStudioValueError, match=r"the schema refers to .* which it does not contain"):
        check_references(schema, "the schema")


@pytest.mark.parametrize("member", ["default", "const", "enum", "examples"])
def test_data_has_no_references(member: str) -> None:
    check_references({"properties": {"a": {member: [{"$ref": "#/$defs/C"}]}}}, "the schema")
    check_references({"properties": {"$ref": {"type": "string"}}}, "the schema")


def test_a_schema_that_is_nested_too_deeply_is_an_error_of_its_tool() -> None:
    schema: dict[str, Any] = {}
    for _ in range(100_000):
        schema = {"type": "object", "properties": {"a": schema}}
    with pytest.raises(LMStudioValueError, match="the schema of tool 'f' is nested more than 200 levels deep"):
        wire_tool("f", None, schema)


def test_a_schema_that_is_nested_too_deeply_to_be_checked_is_an_error_of_its_tool() -> None:
    schema: dict[str, Any] = {}
    for _ in range(150):
        schema = {"type": "object", "properties": {"a": schema}}
    with pytest.raises(LMStudioValueError, match="the parameters of tool 'f' are nested too deeply"):
        ToolFunctionDef("f", "Do.", schema, None)


def test_a_huge_schema_is_not_compared_with_what_a_schema_may_be() -> None:
    properties: dict[str, Any] = {f"p{number}": {"type": "string"} for number in range(2_000)}
    tool = ToolFunctionDef("f", "Do.", {"type": "object", "properties": {**properties, "odd": {"type": 5}}}, None)
    assert tool.check({"p1": "a"}) == {"p1": "a"}
    with pytest.raises(LMStudioValueError, match="p1: 5 is not of type 'string'"):
        tool.check({"p1": 5})
    with pytest.raises(LMStudioValueError, match="the schema of the tool cannot be used"):
        tool.check({"odd": 5})


def test_a_schema_with_a_number_that_python_does_not_write_is_checked() -> None:
    properties = {"a": {"maximum": 10**5_000}, "b": {"patternProperties": {"^c": {"type": "string"}}}}
    tool = ToolFunctionDef("f", "Do.", {"type": "object", "properties": properties}, None)
    with pytest.raises(LMStudioValueError, match="5 is not of type 'string'"):
        tool.check({"a": 1, "b": {"c": 5}})


@pytest.mark.parametrize(("names", "levels"), [("ab", 60), ("a", 3_000)])
def test_a_schema_that_would_be_far_larger_without_its_references_keeps_them(names: str, levels: int) -> None:
    def part(level: int) -> dict[str, Any]:
        properties = {name: {"$ref": f"#/$defs/{level + 1}"} for name in names}
        return {"type": "object", "properties": properties if level < levels else {}}

    schema = {**part(-1), "$defs": {str(level): part(level) for level in range(levels + 1)}}
    assert wire_tool("f", None, schema)["function"]["parameters"] == schema


@pytest.mark.parametrize("odd", [{"definitions": [1]}, {"$ref": {}}, {"$ref": "#/$defs/b"}])
def test_what_is_no_definition_in_a_recursive_schema_is_left_out(odd: dict[str, Any]) -> None:
    definitions = {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}, "b": True}}
    properties = {"properties": {"a": {"$ref": "#/$defs/a"}}}
    sent = wire_tool("f", None, {**definitions, **properties, **odd})["function"]["parameters"]
    assert sent == {"type": "object", **definitions, **properties}
