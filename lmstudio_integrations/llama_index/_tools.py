"""LlamaIndex's tools to OpenAI's dicts, and its answer formats to settings of a prediction. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.tools import BaseTool
from pydantic import BaseModel

from lmstudio_integrations._narrow import is_object
from lmstudio_integrations.errors import LMStudioValueError


def openai_tools(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """Return tools in OpenAI's form, under their own names: plain data, which events may show.

    Raises:
        LMStudioValueError: If one has no name, or is neither a tool of LlamaIndex nor OpenAI's dict of one.
    """
    return [_openai_tool(tool) for tool in tools]


def _openai_tool(tool: Any) -> dict[str, Any]:
    if not isinstance(tool, BaseTool):
        function = tool.get("function") if is_object(tool) else None
        if not is_object(function) or not isinstance(function.get("name"), str):
            raise LMStudioValueError(f"tools must be LlamaIndex tools or OpenAI function dicts, got {tool!r}")
        return dict(tool)
    metadata: Any = tool.metadata
    if not metadata.name:
        raise LMStudioValueError(f"a tool needs a name; this one has none: {metadata.description!r}")
    return {
        "type": "function",
        "function": {
            "name": metadata.name,
            "description": metadata.description,
            "parameters": _parameters(metadata),
        },
    }


def _parameters(metadata: Any) -> dict[str, Any]:
    """Return the schema of a tool's arguments; core's own loses that of a class which contains itself."""
    parameters: dict[str, Any] = metadata.get_parameters_dict()
    if "properties" in parameters or metadata.fn_schema is None:
        return parameters
    schema: dict[str, Any] = metadata.fn_schema.model_json_schema()
    return schema


def response_format(output_cls: type[BaseModel]) -> dict[str, Any]:
    """Return the answer format of a pydantic class: plain data, which events may show."""
    return {
        "type": "json_schema",
        "json_schema": {"name": output_cls.__name__, "schema": output_cls.model_json_schema()},
    }


def response_settings(wanted: object) -> dict[str, Any]:
    """Return what makes the answer fit a format, by its wire key: a pydantic class, a JSON schema, or OpenAI's dicts.

    The native client checks answers that are asked for by name, with jsonschema. Here pydantic does, which takes more.

    Raises:
        LMStudioValueError: If it is none of these.
    """
    structured = None if wanted is None else _structured(wanted)
    return {"llm.prediction.structured": structured} if structured else {}


def _structured(wanted: object) -> dict[str, Any] | None:
    """Return the setting for a format; `None` for plain text."""
    if isinstance(wanted, type) and issubclass(wanted, BaseModel):
        return _json(wanted.model_json_schema())
    if not is_object(wanted):
        raise LMStudioValueError(f"response_format must be a pydantic class, a schema or a dict; got {wanted!r}")
    match wanted:
        case {"type": "text"}:
            return None
        case {"type": "json" | "gbnf"}:
            return wanted
        case {"type": "json_object"}:
            return _json({"type": "object"})
        case {"json_schema": inner} if is_object(inner):
            return _json(inner.get("schema") or {})
        case _:
            return _json(wanted)


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json", "jsonSchema": schema}
