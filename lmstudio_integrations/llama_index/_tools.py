"""LlamaIndex's tools to OpenAI's dicts, and its answer formats to settings of a prediction. Pure."""

from typing import Any

from llama_index.core.tools import BaseTool
from pydantic import BaseModel

from lmstudio_integrations._typeguards import is_iterable, is_object
from lmstudio_integrations.errors import LMStudioValueError


def openai_tools(tools: object) -> list[dict[str, Any]]:
    """Return tools in OpenAI's form, under their own names: plain data, which events may show.

    Raises:
        LMStudioValueError: If one has no name, or is neither a tool of LlamaIndex nor OpenAI's dict of one.
    """
    if not is_iterable(tools):
        raise LMStudioValueError(f"tools must be a list of tools, got {tools!r}")
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
    """Return the settings that make the response fit a format: a pydantic class, a JSON schema, or OpenAI's dicts.

    Raises:
        LMStudioValueError: If it is none of these.
    """
    match wanted:
        case None | {"type": "text"}:
            return {}
        case {"type": "json" | "gbnf"}:
            structured = wanted
        case _:
            structured = {"type": "json", "jsonSchema": _schema(wanted)}
    return {"structured": structured}


def _schema(wanted: object) -> dict[str, Any]:
    """Return the JSON schema of a format."""
    schema = _unpacked(wanted) if is_object(wanted) else wanted
    if is_object(schema):
        return schema
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema.model_json_schema()
    raise LMStudioValueError(f"response_format must be a pydantic class, a schema or a dict; got {schema!r}")


def _unpacked(wanted: dict[str, Any]) -> object:
    """Return the schema in one of OpenAI's dicts; that of its Responses API has nothing nested."""
    kind = wanted.get("type")
    if kind == "json_object":
        return {"type": "object"}
    nested = wanted.get("json_schema", wanted if kind == "json_schema" else None)
    return nested.get("schema") or {} if is_object(nested) else wanted
