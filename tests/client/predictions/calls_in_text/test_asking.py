"""Calls that a model is asked to write again: what of them stays."""

import json
from typing import Any

import pytest

from lmstudio_integrations.client.predictions.calls_in_text.call_repair import (
    WrongCall,
    calls_of,
    response_schema,
    sentence,
)
from lmstudio_integrations.client.predictions.calls_in_text.formats import OfferedTool

SCOPE = {"scope": {"type": "string", "enum": ["user", "system"]}}


@pytest.mark.parametrize(
    "more",
    [
        {"additionalProperties": {"type": "string"}},
        {"additionalProperties": True},
        {"patternProperties": {"^[A-Z]+$": {"type": "string"}}},
    ],
    ids=str,
)
def test_arguments_that_a_schema_allows_beside_the_named_ones_stay(more: dict[str, Any]) -> None:
    tool = OfferedTool(
        {"name": "set", "parameters": {"type": "object", "properties": SCOPE, "required": ["scope"], **more}}
    )
    wrong = WrongCall("…", "…", tool, {"scope": "mine", "PATH": "/bin"})
    arguments = response_schema([wrong])["properties"]["arguments"]
    assert arguments["properties"] == {**SCOPE, "PATH": {"const": "/bin"}}
    assert sorted(arguments["required"]) == ["PATH", "scope"]
    (call,) = calls_of(json.dumps({"name": "set", "arguments": {"scope": "user"}}), [wrong])
    assert call is not None
    assert call.arguments == {"scope": "user", "PATH": "/bin"}


TEXT, INTEGER = {"type": "string"}, {"type": "integer"}
LOOK = OfferedTool(
    {
        "name": "look",
        "parameters": {
            "type": "object",
            "properties": {"path": TEXT, "first": INTEGER, "last": INTEGER, "note": TEXT},
            "required": ["path"],
        },
    }
)
LONG = "a" * 300


@pytest.mark.parametrize(
    ("given", "properties", "required"),
    [
        # What the model did not write, it does not need, unless it wrote it under another name.
        ({"path": "a", "first": "one"}, {"path": {"const": "a"}, "first": INTEGER}, ["path", "first"]),
        (
            {"path": "a", "start": 1},
            {"path": {"const": "a"}, "first": INTEGER, "last": INTEGER, "note": TEXT},
            ["path"],
        ),
        ({"first": 1}, {"path": TEXT, "first": {"const": 1}}, ["path", "first"]),
        ({}, {"path": TEXT, "first": INTEGER, "last": INTEGER, "note": TEXT}, ["path"]),
        # What is long is put in afterwards.
        ({"path": LONG, "first": "one"}, {"first": INTEGER}, ["first"]),
        # Long, but it does not fit.
        ({"path": "a", "first": LONG}, {"path": {"const": "a"}, "first": INTEGER}, ["path", "first"]),
    ],
    ids=str,
)
def test_the_model_writes_again_what_does_not_fit(
    given: dict[str, Any], properties: dict[str, Any], required: list[str]
) -> None:
    arguments = response_schema([WrongCall("…", "…", LOOK, given)])["properties"]["arguments"]
    assert (arguments["properties"], arguments["required"]) == (properties, required)
    assert arguments["additionalProperties"] is False


@pytest.mark.parametrize(
    ("given", "written", "meant"),
    [
        ({"path": "a", "first": "one"}, {"path": "a", "first": 1}, {"path": "a", "first": 1}),
        # A server that ignores the grammar changes nothing that fitted.
        ({"path": "a", "first": "one"}, {"path": "b", "first": 1}, {"path": "a", "first": 1}),
        ({"path": LONG, "first": "one"}, {"first": 1}, {"path": LONG, "first": 1}),
        ({"first": 1}, {"path": "a"}, {"first": 1, "path": "a"}),
        # An argument that nobody wrote or needs.
        ({"first": 1}, {"path": "a", "last": 2}, None),
        ({"path": "a", "start": 1}, {"path": "a", "first": 1}, {"path": "a", "first": 1}),
        ({"path": "a", "first": "one"}, {"first": "one"}, None),
        ({"first": 1}, {"last": 2}, None),
        ({"first": 1}, "a", None),
    ],
    ids=str,
)
def test_what_fitted_stays(given: dict[str, Any], written: Any, meant: dict[str, Any] | None) -> None:
    response = json.dumps({"name": "look", "arguments": written})
    (call,) = calls_of(response, [WrongCall("…", "…", LOOK, given)])
    assert (call and list(call.arguments.items())) == (meant and list(meant.items()))


@pytest.mark.parametrize(
    "response",
    ["", "I would rather not.", "7", "[]", '{"name": "look"}', '{"name": "other", "arguments": {"path": "a"}}'],
)
def test_a_response_that_is_not_the_call_mends_nothing(response: str) -> None:
    wrong = WrongCall("…", "…", LOOK, {})
    assert calls_of(response, [wrong]) == [None]
    assert calls_of(f"[{response}]", [wrong, wrong]) == [None, None]  # one for two


def test_several_calls_are_one_list() -> None:
    node: dict[str, Any] = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    tree = OfferedTool({"name": "tree", "parameters": node})
    wrong = [WrongCall("look(1)", "one is wrong", LOOK, {}), WrongCall("tree(2)", "two is wrong", tree, {})]
    schema = response_schema(wrong)
    assert (schema["type"], schema["minItems"], schema["maxItems"]) == ("array", 2, 2)
    assert [each["properties"]["name"] for each in schema["items"]["anyOf"]] == [{"const": "look"}, {"const": "tree"}]
    assert schema["$defs"]["tool1"]["properties"]["next"] == {"$ref": "#/$defs/tool1"}  # from the root of the list
    calls = calls_of('[{"name": "look", "arguments": {"path": "a"}}, {"name": "tree", "arguments": 1}]', wrong)
    assert [call and call.tool.name for call in calls] == ["look", None]


@pytest.mark.parametrize("with_tools", [True, False])
def test_the_sentence_says_what_is_wrong(with_tools: bool) -> None:
    wrong = [WrongCall("look(1)", "one is wrong", LOOK, {}), WrongCall("look(2)", "two is wrong", LOOK, {})]
    text = sentence(wrong, with_tools=with_tools)
    assert "look(1): one is wrong\nlook(2): two is wrong" in text
    assert text.count("The tool look: ") == with_tools
    assert "the correct calls as JSON: [" in text
    assert "the correct call as JSON: {" in sentence(wrong[:1], with_tools=with_tools)
    assert len(sentence([WrongCall("x" * 100_000, "y" * 100_000, LOOK, {})], with_tools=False)) < 20_000
