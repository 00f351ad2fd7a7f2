"""The columns that structured output becomes: Arrow types, from a JSON schema. Pure; `actors.py` calls it.

A part of a schema that no Arrow type represents becomes a column of JSON text: a union of several types, a dict with
any keys, a type that contains itself.
"""

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from lmstudio_integrations._support.typeguards import is_list, is_mapping
from lmstudio_integrations.errors import LMStudioValueError


def pyarrow() -> Any:
    """Return the module `pyarrow`, which is optional and has no types."""
    return import_module("pyarrow")


class Column(NamedTuple):
    """The type of a column, and what turns a JSON value into a value of that type."""

    type: Any
    convert: Callable[[Any], Any]


def columns_of(schema: Mapping[str, Any]) -> dict[str, Column]:
    """Return the columns of an object, by the names of its properties.

    Raises:
        LMStudioValueError: If the schema is not that of an object with properties.
    """
    root = _resolve(schema, schema)
    properties = root.get("properties")
    if not is_mapping(properties) or not properties:
        raise LMStudioValueError(
            "schema must be that of an object with properties, because they become columns; "
            "put the value into a field of a class"
        )
    return {str(name): _column(each, schema, ()) for name, each in properties.items()}


def _column(schema: object, root: Mapping[str, Any], above: tuple[str, ...]) -> Column:
    """Return the column of a part of a schema; `above` are the references that lead to it."""
    if not is_mapping(schema):
        return _json()
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _json() if reference in above else _column(_resolve(schema, root), root, (*above, reference))
    choices = _choices(schema)
    if choices is not None:
        return _union([_column(each, root, above) for each in choices])
    make = _BY_TYPE.get(str(schema.get("type")))
    return _json() if make is None else make(schema, root, above)


def _union(columns: list[Column]) -> Column:
    """Return the one column that can hold the values of each of several."""
    converts = {each.convert for each in columns}
    is_plain = len({str(each.type) for each in columns}) == 1 and len(converts) == 1 and converts <= {_same, _to_json}
    if len(columns) == 1 or is_plain:
        return columns[0]
    if converts and converts <= {_to_int, _to_float}:
        return next((each for each in columns if each.convert is _to_float), columns[0])
    return _json()


def _choices(schema: Mapping[str, Any]) -> list[Any] | None:
    """Return the alternatives of a union without null; `None` for a plain type."""
    for name in ("anyOf", "oneOf", "allOf"):
        if is_list(schema.get(name)):
            return [each for each in schema[name] if each != {"type": "null"}]
    if is_list(schema.get("type")):
        return [{**schema, "type": each} for each in schema["type"] if each != "null"]
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if "type" not in schema and is_list(values):
        kinds = {_kind(value) for value in values if value is not None}
        return [{"type": kind} for kind in sorted(kinds)]
    return None


def _kind(value: object) -> str:
    """Return the JSON type of a scalar; an empty string for others."""
    names: dict[type, str] = {str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "")


def _resolve(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a schema refers to within the whole one; the schema itself if it refers to nothing."""
    target: Any = schema
    for _ in range(len(root) + 1):
        reference = target.get("$ref") if is_mapping(target) else None
        if not isinstance(reference, str):
            break
        target = root
        for part in reference.removeprefix("#").strip("/").split("/"):
            target = target.get(part.replace("~1", "/").replace("~0", "~")) if is_mapping(target) and part else target
    return target if is_mapping(target) else {}


def _json() -> Column:
    return Column(pyarrow().string(), _to_json)


def _to_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _same(value: Any) -> Any:
    return value


def _to_float(value: Any) -> float | None:
    return None if value is None else float(value)


def _to_int(value: Any) -> int | None:
    # JSON has one type of numbers, and 2.0 is an integer there.
    return None if value is None else int(value)


def _array(schema: Mapping[str, Any], root: Mapping[str, Any], above: tuple[str, ...]) -> Column:
    if "items" not in schema or "prefixItems" in schema:
        return _json()
    item = _column(schema["items"], root, above)

    def convert(value: Any) -> Any:
        return None if value is None else [item.convert(each) for each in value]

    return Column(pyarrow().list_(item.type), convert)


def _object(schema: Mapping[str, Any], root: Mapping[str, Any], above: tuple[str, ...]) -> Column:
    properties = schema.get("properties")
    if not is_mapping(properties) or not properties or schema.get("additionalProperties"):
        return _json()
    fields = {str(name): _column(each, root, above) for name, each in properties.items()}

    def convert(value: Any) -> Any:
        return None if value is None else {name: each.convert(value.get(name)) for name, each in fields.items()}

    return Column(pyarrow().struct([(name, each.type) for name, each in fields.items()]), convert)


_Make = Callable[[Mapping[str, Any], Mapping[str, Any], tuple[str, ...]], Column]


def _scalar(name: str, convert: Callable[[Any], Any]) -> _Make:
    """Return what makes the column of a scalar; `name` is that of the Arrow type."""

    def make(*_: object) -> Column:
        return Column(getattr(pyarrow(), name)(), convert)

    return make


_BY_TYPE: dict[str, _Make] = {
    "string": _scalar("string", _same),
    "integer": _scalar("int64", _to_int),
    "number": _scalar("float64", _to_float),
    "boolean": _scalar("bool_", _same),
    "array": _array,
    "object": _object,
}
