"""Calls that a model is asked to write again: what of them stays."""

import json
from typing import Any

import pytest

from lmstudio_integrations.client.predictions.call_repair.asking import WrongCall, calls_of, response_schema
from lmstudio_integrations.client.predictions.text_calls.tools import OfferedTool

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
    wrong = WrongCall("…", "…", [tool], {"scope": "mine", "PATH": "/bin"})
    arguments = response_schema([wrong])["properties"]["arguments"]
    assert arguments["properties"] == {**SCOPE, "PATH": {"const": "/bin"}}
    assert sorted(arguments["required"]) == ["PATH", "scope"]
    (call,) = calls_of(json.dumps({"name": "set", "arguments": {"scope": "user"}}), [wrong])
    assert call is not None
    assert call.arguments == {"scope": "user", "PATH": "/bin"}
