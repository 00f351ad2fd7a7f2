"""Writes the definition of a tool as a model reads it in the result of `find_tools`: with few tokens. Pure.

`get_forecast(city: string, days?: integer = 3)`, and below it what the tool and its parameters do.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmstudio_integrations._support.text import one_line
from lmstudio_integrations._support.typeguards import is_list, is_object

_MOST_OF_TOOL, _MOST_OF_PARAMETER = 300, 160
"""Characters of a description that stay."""

_DEPTH = 3
"""How deep objects within objects are written."""


def compact(function: Mapping[str, Any]) -> str:
    """Return the definition of a function in compact form, in one or more lines.

    Args:
        function: The function in OpenAI's form.
    """
    return "\n".join(_lines(function))


def _lines(function: Mapping[str, Any]) -> Iterator[str]:
    schema = _object(function.get("parameters"))
    members = _members(schema, _DEPTH)
    described = _short(function.get("description"), _MOST_OF_TOOL)
    yield f"{function['name']}({members})" + (f" - {described}" if described else "")
    for name, parameter in _object(schema.get("properties")).items():
        text = _short(_object(parameter).get("description"), _MOST_OF_PARAMETER)
        if text:
            yield f"  {name}: {text}"


def _short(text: object, most: int) -> str:
    line = one_line(text or "")
    return line if len(line) <= most else f"{line[:most].rstrip()}…"


def _members(schema: Mapping[str, Any], depth: int) -> str:
    required = schema.get("required") or ()
    return ", ".join(
        f"{name}{'' if name in required else '?'}: {_type(part, depth)}{_default(part)}"
        for name, part in _object(schema.get("properties")).items()
    )


def _object(value: object) -> Mapping[str, Any]:
    return value if is_object(value) else {}


def _default(part: object) -> str:
    value = _object(part).get("default")
    return "" if value is None else f" = {_json(value)}"


def _type(part: object, depth: int) -> str:
    """Return what values a schema allows."""
    if not is_object(part):
        return "any"
    for key in ("anyOf", "oneOf"):
        if is_list(part.get(key)):
            return _either([_type(each, depth) for each in part[key]])
    if is_list(part.get("enum")):
        return _either([_json(value) for value in part["enum"]])
    if "const" in part:
        return _json(part["const"])
    kinds = part.get("type")
    return _either([_of_kind(kind, part, depth) for kind in (kinds if is_list(kinds) else [kinds])])


def _of_kind(kind: object, part: Mapping[str, Any], depth: int) -> str:
    if kind == "array":
        item = _type(part.get("items"), depth)
        return f"({item})[]" if " | " in item else f"{item}[]"
    if kind == "object" and part.get("properties") and depth:
        return f"{{{_members(part, depth - 1)}}}"
    if kind == "string" and part.get("format"):
        return f"string({part['format']})"
    return str(kind) if kind else "any"


def _either(types: Sequence[str]) -> str:
    return " | ".join(dict.fromkeys(types)) or "any"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
