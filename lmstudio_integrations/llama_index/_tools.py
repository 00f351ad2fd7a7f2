"""Converts LlamaIndex's tools to OpenAI dicts, and response formats to JSON schemas. Pure."""

from contextlib import suppress
from inspect import isroutine, unwrap
from typing import Any

from llama_index.core.tools import BaseTool, FunctionTool
from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from lmstudio_integrations._adapters.request_tools import reject_built_in, with_warning
from lmstudio_integrations._support.typeguards import is_iterable, is_object
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._json_schemas import class_schema
from lmstudio_integrations.types.structured import unnested


def openai_tools(tools: object) -> list[dict[str, Any]]:
    """Return tools as OpenAI dicts with their own names: plain data, which events may show.

    Raises:
        LMStudioValueError: If one has no name, or is neither a LlamaIndex tool nor an OpenAI dict.
    """
    if not is_iterable(tools):
        raise LMStudioValueError(f"tools must be a list of tools, got {tools!r}")
    return [_openai_tool(tool) for tool in tools]


def _openai_tool(tool: Any) -> dict[str, Any]:
    if not isinstance(tool, BaseTool):
        function = tool.get("function") if is_object(tool) else None
        if function is None and is_object(tool):
            reject_built_in(tool)
        if not is_object(function) or not isinstance(function.get("name"), str):
            remedy = f"; wrap it with FunctionTool.from_defaults({tool.__name__})" if isroutine(tool) else ""
            raise LMStudioValueError(f"tools must be LlamaIndex tools or OpenAI function dicts, got {tool!r}{remedy}")
        return dict(tool)
    metadata: Any = tool.metadata
    if not metadata.name:
        raise LMStudioValueError(f"a tool needs a name; this one has none: {metadata.description!r}")
    if isinstance(tool, FunctionTool) and metadata.fn_schema is not None:
        # Core makes its class of annotations that may be text, which only the module of the function explains.
        names = getattr(unwrap(tool.real_fn), "__globals__", None)
        metadata.fn_schema.model_rebuild(raise_errors=False, _types_namespace=names)
    function = {"name": metadata.name, "description": metadata.description, "parameters": _parameters(metadata)}
    is_of_python = metadata.fn_schema is not None  # else nobody can add type hints
    return {"type": "function", "function": with_warning(function) if is_of_python else function}


def _parameters(metadata: Any) -> dict[str, Any]:
    """Return the schema of a tool's arguments. Core's own method loses the schema of a recursive class."""
    parameters: dict[str, Any] = {}
    with suppress(PydanticUserError):  # ours names the parameter
        parameters = metadata.get_parameters_dict()
    if "properties" in parameters or metadata.fn_schema is None:
        return parameters
    try:
        return class_schema(metadata.fn_schema)
    except PydanticUserError as error:
        raise LMStudioValueError(f"{metadata.fn_schema.__name__} has no JSON schema: {error.message}") from None


def response_schema(response_format: object) -> dict[str, Any]:
    """Return the JSON schema of a response format: a pydantic class, a JSON schema, or an OpenAI dict.

    Raises:
        LMStudioValueError: If it is something else.
    """
    schema = unnested(response_format) if is_object(response_format) else response_format
    if is_object(schema):
        return schema
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return class_schema(schema)
    raise LMStudioValueError(f"response_format must be a pydantic class, a schema or a dict; got {schema!r}")
