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
    """Return the settings that make the answer fit a format: a pydantic class, a JSON schema, or OpenAI's dicts.

    Raises:
        LMStudioValueError: If it is none of these.
    """
    if wanted is None:
        return {}
    schema = _schema(wanted)
    if schema is not None:
        return {"structured": {"type": "json", "jsonSchema": schema}}
    if is_object(wanted):
        return {} if wanted["type"] == "text" else {"structured": wanted}
    raise LMStudioValueError(f"response_format must be a pydantic class, a schema or a dict; got {wanted!r}")


def _schema(wanted: object) -> Mapping[str, Any] | None:
    """Return the JSON schema of a format; `None` for one that is no schema."""
    if isinstance(wanted, type):
        return wanted.model_json_schema() if issubclass(wanted, BaseModel) else None
    if not is_object(wanted) or wanted.get("type") in {"text", "json", "gbnf"}:
        return None
    if wanted.get("type") == "json_object":
        return {"type": "object"}
    inner = wanted.get("json_schema")
    return inner.get("schema") or {} if is_object(inner) else wanted
