"""The shapes that the official TypeScript SDK gives to everything on the wire, and what of a value does not fit one.

`typescript_schemas.json` has them as JSON schemas; a conformance test compares the file with the SDK. Every object is
closed: a field that is not listed is a finding. `jsonschema` would take 30 times as long, and these checks see every
frame of thousands of tests.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache, reduce
from pathlib import Path
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

SCHEMAS: Schema = json.loads(Path(__file__).with_name("typescript_schemas.json").read_text(encoding="utf-8"))
NEWER_SETTINGS: Mapping[str, Schema] = {
    "llm.load.vllm.autoFit": {"type": "boolean"},
    "llm.load.engineConfigFileContents": {"type": "string"},
    "llm.load.engineCwd": {"type": "string"},
}
"""Settings that this version of the SDK does not have (docs/protocol.md#load-keys). Remove one as soon as it has it."""

ADD_SCHEMA = "if LM Studio has it, add its schema to NEWER_SETTINGS in tests/support/strict/shapes.py"
"""What to do about the key of a setting that is not there."""

SETTINGS: Schema = {**SCHEMAS["properties"]["settings"]["properties"], **NEWER_SETTINGS}
"""By the key of each setting."""

_OF_PYTHON_SDK = {
    "llm.prediction.promptTemplate": ("bosToken", "eosToken", "inputConfig"),
    "llm.prediction.tools": ("force",),
}
"""Members of settings that only the official Python SDK sends (docs/protocol.md#prediction-keys)."""

NEWER: Mapping[str, str] = {"decision": "embedding"}
"""Namespaces that this version of the SDK does not have, each with one of which it has the requests and their shapes
(docs/protocol.md#decisions). Remove one as soon as the SDK has it."""

NEWER_MEMBERS: Mapping[str, set[str]] = {"toolCallGenerationStart": {"argumentsFormat"}}
"""Members of packets that this version of the SDK does not have (docs/protocol.md#predict-packets)."""

ABSENT: Schema = {"not": {}}
"""The schema of what must not be there."""

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


@cache
def schema_of(*names: str) -> Schema:
    """Return the schema of a member: of a namespace, its endpoint, and so on; or of `settings` or `frames`.

    Raises:
        KeyError: If the SDK does not have it.
    """
    names = (NEWER.get(names[0], names[0]), *names[1:])
    return reduce(lambda schema, name: _resolved(schema)["properties"][name], names, SCHEMAS)


@cache
def endpoints_of(namespace: str) -> Schema:
    """Return the endpoints of a namespace: a call has the member `parameter`, a channel `creationParameter`."""
    return {name: schema["properties"] for name, schema in schema_of(namespace)["properties"].items()}


def wrong_with(value: object, schema: Schema, path: str) -> Iterator[str]:
    """Yield what of a value does not fit its schema."""
    schema = _resolved(schema)
    if schema == ABSENT:
        yield f"{path} must be absent"
    elif "anyOf" in schema:
        yield from _wrong_with_each(value, schema["anyOf"], path)
    elif "type" in schema and not _has_type(value, schema["type"]):
        yield f"{path} must be {schema['type']}, is {value!r}"
    elif isinstance(value, dict):
        yield from _wrong_with_object(value, schema, path)
    elif isinstance(value, list):
        yield from _wrong_with_array(value, schema, path)
    elif "const" in schema or "enum" in schema:
        allowed = schema.get("enum", [schema.get("const")])
        if value not in allowed:
            yield f"{path} must be one of {', '.join(map(str, allowed))}, is {value!r}"
    elif not _is_within(value, schema):
        yield f"{path} must lie within {dict(schema)}, is {value!r}"


def wrong_settings(namespace: str, parameter: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield what is wrong with the settings in a parameter, whose keys the SDK's schemas of endpoints do not know."""
    for member, places in (
        ("loadConfigStack", (f"{namespace}.load.", "load.", "envVars")),
        ("predictionConfigStack", ("llm.prediction.",)),
        ("config", ("retrieval.",)),
    ):
        stack = parameter.get(member, {"layers": []})
        for config in [layer["config"] for layer in stack["layers"]] if "layers" in stack else [stack]:
            keys = [field["key"] for field in config["fields"]]
            yield from (f"{path}.{member} sets {key} again" for key in {*keys} if keys.count(key) > 1)
            for field in config["fields"]:
                yield from _wrong_setting(field["key"], field.get("value"), places, f"{path}.{member}")


def _wrong_setting(key: str, value: object, places: tuple[str, ...], path: str) -> Iterator[str]:
    own = key.replace("decision.load.", "llm.load.", 1)  # they have the same settings
    if key.startswith(places) and own in SETTINGS:
        known = [f"unknown field {name!r}" for name in _OF_PYTHON_SDK.get(key, ())]
        found = wrong_with(value, SETTINGS[own], f"{path}({key})")
        yield from (each for each in found if not any(name in each for name in known))
    elif key in SETTINGS or key.startswith(("llm.", "embedding.", "decision.", "load.", "retrieval.")):
        yield f"{path} has the key {key}, which has no place here{'' if own in SETTINGS else f'; {ADD_SCHEMA}'}"


def _resolved(schema: Schema) -> Schema:
    return _target(schema["$ref"]) if "$ref" in schema else schema


@cache
def _target(reference: str) -> Schema:
    found: Any = SCHEMAS
    for name in reference.removeprefix("#/").split("/"):
        found = _resolved(found)
        found = found[int(name)] if isinstance(found, list) else found[name]
    return _resolved(found)


def _has_type(value: object, types: str | list[str]) -> bool:
    """Whether a value has one of some types: `true` is no number, and `1.0` no integer."""
    names = [types] if isinstance(types, str) else types
    return any(isinstance(value, _TYPES[name]) and (name == "boolean") == isinstance(value, bool) for name in names)


def _is_within(value: object, schema: Schema) -> bool:
    """Whether the bounds of a schema allow a text or a number."""
    if isinstance(value, str):
        shortest, longest = schema.get("minLength", 0), schema.get("maxLength", len(value))
        return shortest <= len(value) <= longest and bool(re.search(schema.get("pattern", ""), value))
    if isinstance(value, int | float):
        least, most = schema.get("minimum", value), schema.get("maximum", value)
        return bool(least <= value <= most and value > schema.get("exclusiveMinimum", float("-inf")))
    return True


def _wrong_with_each(value: object, options: list[Schema], path: str) -> Iterator[str]:
    """Yield what is wrong with the option that the value means by its tag, or with the last one if none fits."""
    options = [_resolved(option) for option in options]
    tag = next((name for name, of in options[0].get("properties", {}).items() if "const" in _resolved(of)), None)
    if tag is not None and isinstance(value, dict) and all(tag in each.get("properties", {}) for each in options):
        tagged = {_resolved(option["properties"][tag]).get("const"): option for option in options}
        if value.get(tag) not in [*tagged]:
            yield f"{path}.{tag} must be one of {', '.join(map(str, tagged))}, is {value.get(tag)!r}"
            return
        options = [tagged[value[tag]]]
    found: list[str] = []
    for option in options:
        found = [*wrong_with(value, option, path)]
        if not found:
            return
    yield from found


def _wrong_with_object(value: dict[str, Any], schema: Schema, path: str) -> Iterator[str]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    yield from (f"{path} lacks {name!r}" for name in schema.get("required", []) if name not in value)
    newer = NEWER_MEMBERS.get(str(value.get("type")), set())
    for name, member in value.items():
        if name in newer:
            continue
        if name in known:
            yield from wrong_with(member, known[name], f"{path}.{name}")
        elif others is False:
            yield f"{path} has the unknown field {name!r}; known are {', '.join(sorted(known))}"
        elif others is not True:
            yield from wrong_with(member, others, f"{path}.{name}")


def _wrong_with_array(value: list[Any], schema: Schema, path: str) -> Iterator[str]:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield f"{path} must have {schema.get('minItems')} items, has {len(value)}"
    items = schema.get("items", {})
    for index, item in enumerate(value):
        of = items if isinstance(items, dict) else items[min(index, len(items) - 1)]
        yield from wrong_with(item, of, f"{path}[{index}]")
