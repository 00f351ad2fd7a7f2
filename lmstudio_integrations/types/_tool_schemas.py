"""Brings the JSON schemas of tools into the form of the wire, and checks arguments against them. Pure.

`functions.py` and the adapters call it. See `docs/protocol.md#tool-definitions`.
"""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations._support.shortening import shortened
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._schema_errors import check_references

_PARAMETERS = ("type", "properties", "required", "additionalProperties", "$defs")
"""The top-level members of a tool's schema that the wire keeps."""

_DEFINITIONS = ("$defs", "definitions")


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


class ArgumentSchema:
    """Checks the arguments of a tool against a JSON schema.

    Args:
        schema: The schema; without `$schema` it is one of draft 2020-12.
        name: The name of the tool, for errors.

    Raises:
        LMStudioValueError: If it is not a JSON schema.
    """

    def __init__(self, schema: Mapping[str, Any], name: str) -> None:
        from jsonschema import Draft202012Validator  # noqa: PLC0415 - lazy: keeps import cheap
        from jsonschema.exceptions import SchemaError  # noqa: PLC0415
        from jsonschema.validators import validator_for  # noqa: PLC0415
        from referencing.jsonschema import EMPTY_REGISTRY  # noqa: PLC0415

        schema = dict(schema)  # jsonschema accepts no other mapping as an object
        kind: Any = validator_for(schema, default=Draft202012Validator)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            path = "".join(f"[{part!r}]" for part in error.absolute_path)
            raise LMStudioValueError(
                f"the parameters of tool {name!r} are not a JSON schema: parameters{path}: {shortened(error.message)}"
            ) from error
        # A registry of its own: jsonschema's default downloads what a schema refers to.
        self._validator: Any = kind(schema, registry=EMPTY_REGISTRY)

    def problems(self, arguments: Mapping[str, Any]) -> list[str]:
        """Return what is wrong with arguments."""
        from referencing.exceptions import Unresolvable  # noqa: PLC0415 - lazy: keeps import cheap

        try:
            return [
                f"{'.'.join(map(str, each.absolute_path)) or 'arguments'}: {shortened(each.message)}"
                for each in self._validator.iter_errors(dict(arguments))
            ]
        except Unresolvable as error:
            return [f"the schema of the tool refers to {error.ref!r}, which it does not contain"]
        except RecursionError:
            return ["the arguments are nested too deeply"]


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
