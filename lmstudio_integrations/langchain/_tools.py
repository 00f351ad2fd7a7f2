"""LangChain's tools to OpenAI's dicts, and its answer formats to settings of a prediction. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from pydantic import BaseModel
from pydantic.v1 import BaseModel as BaseModelV1

from lmstudio_integrations._adapters.schemas import inlined
from lmstudio_integrations._narrow import is_object
from lmstudio_integrations.errors import LMStudioValueError

ToolLike = Mapping[str, Any] | type | Callable[..., Any] | BaseTool
"""What `bind_tools` takes for a tool."""


def openai_tools(tools: Sequence[ToolLike], *, strict: bool | None = None) -> list[dict[str, Any]]:
    """Return tools of any kind as OpenAI dicts.

    Raises:
        LMStudioValueError: If one is nothing that can be called by name with JSON arguments.
    """
    return [_openai_tool(tool, strict) for tool in tools]


def _openai_tool(tool: Any, strict: bool | None) -> dict[str, Any]:  # noqa: FBT001 - three-valued
    try:
        converted = convert_to_openai_tool(tool, strict=strict)
    except (ValueError, TypeError) as error:
        raise LMStudioValueError(f"{tool!r} cannot be a tool: {error}") from error
    if not is_object(converted.get("function")):
        raise LMStudioValueError(
            f"LM Studio runs no tools of type {converted.get('type')!r}; give it functions, pydantic classes, "
            "LangChain tools or OpenAI function dicts"
        )
    return converted


def json_schema(schema: Any, *, strict: bool | None = None) -> dict[str, Any]:
    """Return the JSON schema of a pydantic class, a TypedDict, an OpenAI dict, or a JSON schema itself."""
    if is_object(schema):
        nested = schema.get("json_schema")
        if is_object(nested):
            return json_schema(nested.get("schema") or {})
        if "title" not in schema and "name" not in schema and "function" not in schema:
            return inlined(schema)
    return inlined(convert_to_json_schema(schema, strict=strict))


def is_pydantic(schema: object) -> bool:
    """Whether a schema is a pydantic class, of version 2 or 1."""
    return isinstance(schema, type) and issubclass(schema, BaseModel | BaseModelV1)


def response_settings(response_format: Any) -> dict[str, Any]:
    """Return what makes the answer fit a format, OpenAI's dicts or a schema of any kind, by its wire key.

    The native client checks answers that are asked for by name. Here the parsers do, and may want to see a wrong one.

    Raises:
        LMStudioValueError: If it is none of these.
    """
    structured = _structured(response_format)
    return {"llm.prediction.structured": structured} if structured else {}


def _structured(response_format: Any) -> dict[str, Any] | None:
    kind = response_format.get("type") if is_object(response_format) else None
    if response_format is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json", "jsonSchema": {"type": "object"}}
    if kind == "gbnf":
        return dict(response_format)
    try:
        return {"type": "json", "jsonSchema": json_schema(response_format)}
    except (ValueError, TypeError) as error:
        raise LMStudioValueError(
            f"response_format must be a schema or an OpenAI dict, got {response_format!r}"
        ) from error


def schema_name(schema: Any) -> str:
    """Return the name under which a schema is a tool."""
    name: str = convert_to_openai_tool(schema)["function"]["name"]
    return name
