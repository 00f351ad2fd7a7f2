"""The schema of a call of one of several tools, for what writes or repairs a call as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmstudio_integrations.types._json_schemas import references, rewritten


def call_schema(functions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the schema of a call of one of these functions: an object with `name` and `arguments`.

    Args:
        functions: The functions, each in wire form.
    """
    calls, definitions = list[dict[str, Any]](), dict[str, Any]()
    for number, function in enumerate(functions):
        arguments: dict[str, Any] = {"type": "object", "properties": {}, **(function.get("parameters") or {})}
        if next(references(arguments), None) is not None:  # they are moved together with what they refer to
            definitions[f"tool{number}"] = _moved(arguments, f"#/$defs/tool{number}")
            arguments = {"$ref": f"#/$defs/tool{number}"}
        properties = {"name": {"const": function["name"]}, "arguments": arguments}
        calls.append(
            {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            }
        )
    schema: dict[str, Any] = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {**schema, "$defs": definitions} if definitions else schema


def _moved(schema: Any, place: str) -> Any:
    """Return a part of a schema with its references as they are once the schema is moved."""

    def moved(part: dict[str, Any]) -> dict[str, Any]:
        reference = part.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            part["$ref"] = place + reference[1:]
        return part

    return rewritten(schema, moved)
