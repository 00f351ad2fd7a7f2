"""The confidence of the fields of a JSON text: against a recomputation, and in every form that a text has."""

import math
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.types.confidence import confidence_of, confidence_of_arguments
from tests.support.confidences import generated, recomputed


def near(value: float) -> Any:
    return pytest.approx(value)


def token(text: str, probability: float | None = 0.5, **candidates: float) -> dict[str, Any]:
    others = [{"text": each, "id": 2, "logProb": math.log(p)} for each, p in candidates.items()]
    logarithm = None if probability is None else math.log(probability)
    return {"text": text, "id": 1, "logProb": logarithm, "candidates": others}


def probabilities(found: dict[str, lms.FieldConfidence] | None) -> Any:
    return None if found is None else pytest.approx({path: each.probability for path, each in found.items()})


@pytest.mark.parametrize("seed", range(24))
def test_the_confidence_is_that_of_a_recomputation(seed: int) -> None:
    document = generated(seed)
    found = confidence_of(document.text, document.tokens, document.schema)
    assert found is not None
    expected = recomputed(document)
    assert found.keys() == expected.keys()
    for path, (probability, alternative, alternative_probability) in expected.items():
        each = found[path]
        assert each.probability == pytest.approx(probability, abs=1e-9)
        assert repr(each.alternative) == repr(alternative)
        assert each.alternative_probability == pytest.approx(alternative_probability, abs=1e-9)


def test_the_fields_of_a_response() -> None:
    tokens = [
        token('{"city'),
        token('": "', 0.9),
        token("Os", 0.8, Ber=0.1),
        token('lo",', 0.5),
        token(' "at":', 0.9),
        token(" [", 0.9),
        token("12", 0.5, **{"13": 0.25, "1": 0.2}),
        token(", ", 0.9),
        token("true]}", 0.6, false=0.3),
    ]
    assert confidence_of('{"city": "Oslo", "at": [12, true]}', tokens) == {
        "city": lms.FieldConfidence(near(0.9 * 0.8 * 0.5)),
        "at[0]": lms.FieldConfidence(near(0.5), 13, near(0.25)),
        "at[1]": lms.FieldConfidence(near(0.6), False, near(0.3)),
    }


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("7", [token("7")], {"": 0.5}),
        (' {"a": {}}\n', [token(' {"a":'), token(" {", 0.9), token("}"), token("}\n", 0.1)], {"a": 0.45}),
        ('{"a": 1}', [token('\n{"a": 1}')], {"a": 0.5}),
        ('{"a": 1}', [token('{"a": 1}', 0.9), token("<|im_end|>"), token("")], {"a": 0.9}),
        ('{"a": 1, "a": 2}', [token('{"a": 1', 0.9), token(', "a": '), token("2", 0.3), token("}")], {"a": 0.3}),
        ('{"a": 1}', [token('{"a": '), token("1", None), token("}")], {"a": 0.0}),
        ('{"a": 1}', [token('{"a": '), {"text": "1"}, token("}")], {}),
        ('["é"]', [token("["), token('"', 0.9), token(""), token(""), token('"]', 0.8)], {"[0]": 0.9 * 0.25 * 0.8}),
        ('["ééé"]', [token('["'), token("\ufffd"), token("é"), token('"', 0.8), token("]")], None),
        ('["éé"]', [token('["'), token("\ufffd"), token("\ufffd"), token("é"), token('"]')], {"[0]": 0.5**5}),
        ('```json\n{"a": 1}\n```', [token("```json\n"), token('{"a": 1}', 0.9), token("\n```")], {"a": 0.9}),
        ("yes", [token("yes")], None),
        ('{"a": 1', [token('{"a": 1')], None),
        ('{"a": 1} and', [token('{"a": 1} and')], None),
        ('{"a": 1}', [], None),
        ('{"a": 1}', [token('{"a"'), token("1}")], None),
        ('{"a": 1}', [token('{"a": 1')], None),
        (f'["{"é" * 40}"]', [token('["'), *[token("\ufffd")] * 80, token('"]')], {"[0]": 0.5**82}),
        *(
            (f'["{"é" * 20_000}"]', [token('["'), *[token(part)] * 40_000, token('"]')], None)
            for part in ("\ufffd", "", "\ufffd\ufffd")
        ),
        ("[" * 100_000, [token("[" * 100_000)], None),
        ("9" * 10_000, [token("9" * 10_000)], None),
    ],
)
def test_tokens_are_aligned_or_the_confidence_is_not_known(text: str, tokens: Any, expected: Any) -> None:
    found = confidence_of(text, tokens)
    assert probabilities(found) == expected


ENUM = {"enum": ["red", "green", "grey", None]}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"properties": {"c": ENUM}}, "green"),
        ({"properties": {"c": {"$ref": "#/$defs/C"}}, "$defs": {"C": ENUM}}, "green"),
        ({"anyOf": [{"properties": {"c": {"const": "grey"}}}, {"properties": {"c": {"const": "red"}}}]}, "grey"),
        ({"additionalProperties": ENUM}, "green"),
        ({"properties": {"c": {"anyOf": [{"enum": ["red", "green"]}, {"type": "null"}]}}}, "green"),
        ({"properties": {"c": {"anyOf": [ENUM, {"type": "string"}]}}}, None),
        ({"properties": {"c": {"type": "string"}}}, None),
        ({"properties": {"c": {"$ref": "#/$defs/C"}}, "$defs": {"C": {"$ref": "#/$defs/C"}}}, None),
        ({"properties": {"c": {"$ref": "other.json"}}}, None),
        ({"properties": {"c": True}}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_schema_names_the_members_of_an_enum(schema: Any, expected: str | None) -> None:
    tokens = [token('{"c":'), token(' "', 0.8), token("red", 0.5, gr=0.3, re=0.4, yellow=0.45), token('"}')]
    found = confidence_of('{"c": "red"}', tokens, schema)
    assert found is not None
    likely = None if expected is None else near(0.8 * 0.3)
    assert found["c"] == lms.FieldConfidence(near(0.8 * 0.5 * 0.5), expected, likely)


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ("3", 3),
        ("-", None),
        ("4,", 4),
        ("4", None),
        ("42}", None),
        ("420", 420),
        ("4.", None),
        ("4.5", 4.5),
        (" 5", 5),
        ("five", None),
        ("\n", None),
        ("42.0", None),
        ("1e", None),
    ],
)
def test_the_alternative_of_a_number_is_one_that_a_candidate_begins(candidate: str, expected: Any) -> None:
    found = confidence_of('{"n":42}', [token('{"n":'), token("42", 0.5, **{candidate: 0.25}), token("}")])
    assert found is not None
    assert (found["n"].alternative, found["n"].alternative_probability) == (expected, expected and pytest.approx(0.25))


CALL = '<tool_call>{"name": "look", "arguments": {"city": "Oslo"}}</tool_call>'


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        (CALL, {"city": "Oslo"}, {"city": 0.5}),
        (CALL + CALL, {"city": "Oslo"}, None),
        (CALL, {"city": "Rome"}, None),
        ('look(city="Oslo") {', {"city": "Oslo"}, None),
        ('{"name": "now", "arguments": {}}', {}, {"": 0.5}),
        (f"Fill {{city}} in {{ }}: {CALL}", {"city": "Oslo"}, {"city": 0.5}),
        ('{"code": "{{{}", "in": {"city": "Oslo"}}', {"city": "Oslo"}, {"city": 0.5}),
        ("{" * 100 + CALL, {"city": "Oslo"}, {"city": 0.5}),
        ("{" * 101 + CALL, {"city": "Oslo"}, None),
    ],
)
def test_the_arguments_of_a_call_are_found_in_its_text(text: str, arguments: Any, expected: Any) -> None:
    found = confidence_of_arguments(text, [token(text)], arguments, None)
    assert probabilities(found) == expected
    assert confidence_of_arguments(text, [token("other")], arguments, None) is None
    assert confidence_of_arguments(text, [], arguments, None) is None


def test_a_value_that_is_nested_too_deeply_has_no_confidence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr("lmstudio_integrations.types.confidence._leaves", fail)
    assert confidence_of("[1]", [token("[1]")]) is None
    assert confidence_of_arguments('{"a": 1}', [token('{"a": 1}')], {"a": 1}, None) is None
