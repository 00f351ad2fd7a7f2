"""Brings JSON schemas and response formats into the form of the wire. Pure.

See `docs/protocol.md#tool-definitions` and `docs/protocol.md#structured-output`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from lmstudio_integrations._typeguards import is_list, is_object
from lmstudio_integrations.types._schema_errors import check_references, reject_text

_PARAMETERS = ("type", "properties", "required", "additionalProperties", "$defs")
"""The top-level members of a tool's schema that the wire keeps."""

_DEFINITIONS = ("$defs", "definitions")

_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")


def wire_name(name: str) -> str:
    """Return a tool's name as it is sent: every server accepts letters, digits, `_` and `-`."""
    return _UNSAFE.sub("_", name)


class _RecursiveError(Exception):
    """A recursive schema, which needs its references."""


def wire_tool(name: str, description: str | None, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a tool's definition in wire form: its parameters are an object with properties, even if it has none."""
    check_references(parameters or {}, f"the schema of tool {name!r}")
    flat = inlined(parameters or {})
    kept = {key: flat[key] for key in _PARAMETERS if key in flat}
    function: dict[str, Any] = {
        "name": name,
        "parameters": {**kept, "type": "object", "properties": kept.get("properties") or {}},
    }
    if description:
        function["description"] = description
    return {"type": "function", "function": function}


def response_settings(response_format: Any, schema_of: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Return the setting of a response format; empty for plain text.

    Args:
        response_format: An OpenAI dict, the wire's own form, or what `schema_of` accepts.
        schema_of: Returns the JSON schema in any other form of a response format.
    """
    match response_format:
        case None | {"type": "text"}:
            return {}
        case {"type": "gbnf" | "json"}:  # the wire's own form
            structured = dict[str, Any](response_format)
        case {"type": "json_object"}:
            structured = {"type": "json", "jsonSchema": {"type": "object"}}
        case _:
            reject_text(response_format, "response_format")
            schema = schema_of(response_format)
            check_references(schema, "the schema of the response")
            structured = {"type": "json", "jsonSchema": schema}
    return {"structured": structured}


def inlined(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema with its references replaced by their targets; a recursive one keeps all but the topmost.

    Older servers drop the definitions of a tool's schema, which breaks its references.
    """
    definitions = {f"#/{group}/{name}": each for group in _DEFINITIONS for name, each in schema.get(group, {}).items()}
    if not definitions:
        return dict(schema)
    bare = {key: value for key, value in schema.items() if key not in _DEFINITIONS}
    try:
        flat: dict[str, Any] = _inline(bare, definitions, ())
    except _RecursiveError:
        target = definitions.get(schema.get("$ref", ""), {})
        return _with_defs({**target, **{key: value for key, value in schema.items() if key != "$ref"}})
    return flat


def _with_defs(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with all definitions in `$defs`. Older drafts and pydantic 1 use `definitions`."""
    older = schema.get("definitions")
    if not older:
        return schema
    moved = {f"#/definitions/{name}": {"$ref": f"#/$defs/{name}"} for name in older}
    bare = {key: value for key, value in schema.items() if key != "definitions"}
    renamed: dict[str, Any] = _inline({**bare, "$defs": {**older, **schema.get("$defs", {})}}, moved, ())
    return renamed


def _inline(node: Any, definitions: Mapping[str, Any], within: tuple[str, ...]) -> Any:
    """Return a part of a schema without references; `within` is the path of references to it."""
    if is_list(node):
        return [_inline(item, definitions, within) for item in node]
    if not is_object(node):
        return node
    reference = node.get("$ref")
    if not isinstance(reference, str) or reference not in definitions:
        return {key: _inline(value, definitions, within) for key, value in node.items()}
    if reference in within:
        raise _RecursiveError
    target = _inline(definitions[reference], definitions, (*within, reference))
    siblings = {key: _inline(value, definitions, within) for key, value in node.items() if key != "$ref"}
    return {**target, **siblings} if is_object(target) else target
