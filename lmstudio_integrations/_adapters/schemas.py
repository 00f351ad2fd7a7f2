"""JSON schemas as the wire takes them (protocol §6.3, §7.6). Pure."""

import re
from collections.abc import Mapping
from typing import Any

from lmstudio_integrations._typeguards import is_list, is_object

_PARAMETERS = ("type", "properties", "required", "additionalProperties", "$defs")
"""What the wire keeps of a tool's schema at its top."""

_DEFINITIONS = ("$defs", "definitions")


_FOREIGN = re.compile(r"[^a-zA-Z0-9_-]")


def wire_name(name: str) -> str:
    """Return a tool's name as it is sent: every server takes letters, digits, `_` and `-`."""
    return _FOREIGN.sub("_", name)


class _RecursiveError(Exception):
    """A schema contains itself; it cannot be written without references."""


def wire_tool(name: str, description: str | None, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a tool's definition as the wire wants it: an object with properties, also if it takes nothing."""
    flat = inlined(parameters or {})
    kept = {key: flat[key] for key in _PARAMETERS if key in flat}
    function: dict[str, Any] = {
        "name": name,
        "parameters": {**kept, "type": "object", "properties": kept.get("properties") or {}},
    }
    if description:
        function["description"] = description
    return {"type": "function", "function": function}


def inlined(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema with its references put in place; a recursive one keeps all but the one at its top.

    Older servers drop the definitions of a tool's schema, and with them what its references point to.
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
    """Return a schema whose definitions are all in `$defs`: older drafts, and pydantic 1, call the group otherwise."""
    older = schema.get("definitions")
    if not older:
        return schema
    moved = {f"#/definitions/{name}": {"$ref": f"#/$defs/{name}"} for name in older}
    bare = {key: value for key, value in schema.items() if key != "definitions"}
    renamed: dict[str, Any] = _inline({**bare, "$defs": {**older, **schema.get("$defs", {})}}, moved, ())
    return renamed


def _inline(node: Any, definitions: Mapping[str, Any], within: tuple[str, ...]) -> Any:
    """Return a part of a schema without references; `within` are those that led here."""
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
    beside = {key: _inline(value, definitions, within) for key, value in node.items() if key != "$ref"}
    return {**target, **beside} if is_object(target) else target
