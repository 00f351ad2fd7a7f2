"""Schemas, grammars and required tools in llama.cpp's form."""

from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.base import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp import constraints
from lmstudio_integrations.types.functions import Tool


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("structured", "words"),
    [
        ({"type": "json", "jsonSchema": False}, "must be an object"),
        ({"type": "gbnf", "gbnfGrammar": None}, "gbnfGrammar"),
        ({"type": "gbnf", "gbnfGrammar": "  "}, "gbnfGrammar"),
    ],
)
def test_what_would_be_ignored_is_rejected(structured: dict[str, Any], words: str) -> None:
    with pytest.raises(EngineError, match=words):
        constraints.structured_output(lms.LlmPredictionConfig(structured=structured))


@pytest.mark.parametrize(
    ("schema", "bound"),
    [
        (nested(2000), "levels deep"),
        ({"$defs": {str(at): {} for at in range(4000)}}, "more than 4000 objects"),
        ({"enum": list(range(1001))}, "more than 1000 alternatives"),
        ({"anyOf": [{"oneOf": [{}] * 50}] * 21}, "more than 1000 alternatives"),
        ({"properties": {str(at): {} for at in range(1001)}}, "more than 1000 alternatives"),
    ],
)
def test_a_schema_that_would_take_the_engine_minutes_is_rejected(schema: dict[str, Any], bound: str) -> None:
    with pytest.raises(EngineError, match=bound) as caught:
        constraints.check_schema(schema)
    assert caught.value.display_data is not None
    assert caught.value.display_data["code"] == "generic.engineDoesNotSupportFeature"


def test_large_but_reasonable_schemas_are_accepted() -> None:
    names = [str(at) for at in range(1500)]
    assert constraints.check_schema({"properties": {name: {} for name in names}, "required": names})
    assert constraints.check_schema({"enum": list(range(1000))})
    assert constraints.check_schema(nested(59))


def test_the_schemas_of_all_tools_count_together() -> None:
    constraints.check_tools([])
    constraints.check_tools([tool(f"f{at}") for at in range(1000)])
    with pytest.raises(EngineError, match="more than 1000 alternatives"):
        constraints.check_tools([tool(f"f{at}") for at in range(1001)])


def test_a_grammar_that_would_overflow_the_engines_stack_is_rejected() -> None:
    grammar = f'root ::= {"(" * 200}"((" [(\\]] {")" * 200} # ((('
    assert constraints.check_grammar(grammar) == grammar
    for bad in (f'root ::= {"(" * 201}"a"{")" * 201}', "a" * 100_001):
        with pytest.raises(EngineError, match="100000 characters or 200 nested parentheses"):
            constraints.check_grammar(bad)


def test_a_grammar_with_open_ends_is_looked_through_once() -> None:
    for sign in ('"', "[", '"[', "\\"):
        assert constraints.check_grammar("r" + sign * 2_000)


@pytest.mark.parametrize("name", ["imum", "Length", "Items"])
def test_contradictory_bounds_are_rejected(name: str) -> None:
    with pytest.raises(EngineError, match=f"min{name} 2 is more than max{name} 1"):
        constraints.check_schema({"properties": {"a": {f"min{name}": 2, f"max{name}": 1}}})
    assert constraints.check_schema({f"min{name}": 1, f"max{name}": 1})


@pytest.mark.parametrize(
    ("schema", "lost"),
    [
        ({"type": ["number", "null"], "minimum": 1, "exclusiveMaximum": 2}, "exclusiveMaximum, minimum"),
        ({"type": "integer", "multipleOf": 5, "minimum": 1}, "multipleOf"),
        ({"type": "array", "uniqueItems": True, "contains": {}}, "contains, uniqueItems"),
    ],
)
def test_ignored_keywords_are_logged_once(caplog: pytest.LogCaptureFixture, schema: dict[str, Any], lost: str) -> None:
    constraints.check_schema({"properties": {"a": schema}})
    (record,) = caplog.records
    assert (record.levelname, record.message.partition(": ")[2]) == ("WARNING", lost)


def test_supported_keywords_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    properties = {
        "pattern": {"type": "string", "maxLength": 3},
        "not": {"type": "integer", "minimum": 1},
        "a": {"const": {"pattern": "x"}, "uniqueItems": False},
    }
    schema = {"type": "object", "properties": properties}
    assert constraints.check_schema(schema) == schema
    assert caplog.text == ""


def tool(name: str, parameters: dict[str, Any] | None = None) -> Tool:
    return Tool.from_dict({"function": {"name": name, "parameters": parameters}})


def call_schema(*tools: Tool) -> Any:
    return constraints.forced_call(tools)["json_schema"]


def test_a_call_to_one_tool_needs_no_choice() -> None:
    schema = call_schema(tool("now"))
    assert schema.keys() & {"anyOf", "$defs"} == set()
    assert schema["properties"]["name"] == {"const": "now"}
    assert schema["properties"]["arguments"] == {"type": "object", "properties": {}, "additionalProperties": False}


def test_each_tool_keeps_its_own_definitions() -> None:
    parameters = {
        "type": "object",
        "properties": {"p": {"$ref": "#/$defs/P"}, "self": {"$ref": "#"}},
        "$defs": {"P": {"type": "string"}},
    }
    schema = call_schema(tool("a", parameters), tool("b", parameters))
    assert [choice["properties"]["name"]["const"] for choice in schema["anyOf"]] == ["a", "b"]
    for number, definition in enumerate(schema["$defs"].values()):
        properties = definition["properties"]
        assert properties["p"]["$ref"] == f"#/$defs/tool{number}/$defs/P"
        assert properties["self"]["$ref"] == f"#/$defs/tool{number}"


def test_arguments_without_bounds_get_some() -> None:
    text = {"type": "string", "maxLength": constraints.MAX_TEXT_LENGTH}
    bounded = {
        "own": {"type": "string", "maxLength": 5},
        "one_of": {"type": "string", "enum": ["a"]},
        "type": {"type": "integer", "default": {"type": "string"}},
    }
    parameters = {
        "type": "object",
        "properties": {**bounded, "free": {"type": "string"}, "list": {"type": "array", "items": {"type": "string"}}},
        "additionalProperties": {"type": "string"},
    }
    schema = call_schema(tool("f", parameters))["properties"]["arguments"]
    items = {"type": "array", "items": text, "maxItems": constraints.MAX_ITEMS}
    assert schema["properties"] == {**bounded, "free": text, "list": items}
    assert schema["additionalProperties"] == text


@pytest.mark.parametrize("schema", [{"pattern": "^a$"}, {"minLength": 2, "maxLength": 1}])
def test_what_llama_cpp_cannot_follow_is_rejected_in_a_required_call_as_well(schema: dict[str, Any]) -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string", **schema}}}
    with pytest.raises(EngineError, match=r"'pattern'|minLength 2 is more"):
        constraints.forced_call([tool("f", parameters)])


def test_a_pattern_is_rejected_with_a_remedy() -> None:
    with pytest.raises(
        EngineError, match=r"does not support this: the keyword 'pattern' .* such as '\^a\+\$'"
    ) as caught:
        constraints.check_schema({"properties": {"a": {"anyOf": [{"type": "string", "pattern": "^a+$"}]}}})
    assert "check the text in the program" in (caught.value.suggestion or "")
    assert (caught.value.display_data or {})["code"] == "generic.engineDoesNotSupportFeature"


def test_a_forced_call_is_not_punished_for_repeating_the_question() -> None:
    forced = constraints.forced_call([tool("now")])
    assert (forced["repeat_penalty"], forced["presence_penalty"], forced["frequency_penalty"]) == (1.0, 0.0, 0.0)
