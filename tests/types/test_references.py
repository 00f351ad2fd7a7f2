"""Ways to reference a loaded model."""

import json
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.types.models import InstanceSpecifier, by_identifier, specifier_of
from tests.support.strict.shapes import schema_of, wrong_with

SPECIFIER = schema_of("llm", "tokenize", "parameter", "specifier")
M1 = {"type": "query", "query": {"identifier": "m1"}}
REF = {"type": "instanceReference", "instanceReference": "ref"}


@pytest.mark.parametrize(
    ("reference", "wire"),
    [
        ("m1", M1),
        (by_identifier("m1"), M1),
        (lms.ModelQuery(identifier="m1"), M1),
        ({"identifier": "m1"}, M1),
        (M1, M1),
        ({}, {"type": "query", "query": {}}),
        (
            {"device_identifier": None, "vision": True},
            {"type": "query", "query": {"deviceIdentifier": None, "vision": True}},
        ),
        (InstanceSpecifier(instance_reference="ref"), REF),
        (REF, REF),
    ],
)
def test_a_model_may_be_named_in_many_ways(reference: Any, wire: dict[str, Any]) -> None:
    specifier = specifier_of(reference)
    assert specifier.to_dict() == wire
    assert not list(wrong_with(json.loads(specifier.to_json()), SPECIFIER, "specifier"))


@pytest.mark.parametrize(
    "reference",
    [
        "",
        None,
        5,
        ["m1"],
        {"type": "key", "key": "m1"},
        {"type": "query"},
        {"type": "query", "query": 5},
        {"type": "instanceReference"},
        {"identifier": "line\nbreak"},
        {"identifier": 5},
    ],
)
def test_what_names_no_model_is_rejected(reference: Any) -> None:
    with pytest.raises(lms.LMStudioValueError):
        specifier_of(reference)


@pytest.mark.parametrize("reference", [{"identifer": "m1"}, {"type": "query", "query": {"identifer": "m1"}}])
def test_a_mistyped_name_does_not_mean_any_model(reference: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match="did you mean 'identifier'"):
        specifier_of(reference)
