"""References of a JSON schema must have a target in it, wherever that is."""

import pytest

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._json_schemas import check_references

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


def test_a_property_may_be_called_ref() -> None:
    check_references({"properties": {"$ref": {"type": "string"}}}, "the schema")
