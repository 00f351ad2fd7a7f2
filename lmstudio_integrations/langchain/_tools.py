"""Tools and answer formats to settings of a prediction. Pure.

Whatever LangChain calls a tool becomes an OpenAI dict in `bind_tools`; here such dicts become what the wire takes
(protocol §5.4, §6.3): parameters are an object with properties, references are resolved where they can be.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from pydantic import BaseModel
from pydantic.v1 import BaseModel as BaseModelV1

from lmstudio_integrations._adapters.schemas import inlined, wire_name, wire_tool
from lmstudio_integrations._narrow import is_object
from lmstudio_integrations.errors import LMStudioValueError

ToolLike = Mapping[str, Any] | type | Callable[..., Any] | BaseTool
"""What `bind_tools` takes for a tool."""

_MODES = {
    "auto": "auto",
    "none": "none",
    "any": "required",
    "required": "required",
    True: "required",
    False: "auto",
}
"""LangChain's and OpenAI's choices by the wire's modes; any other text is the name of a tool."""


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


def choice_of(tool_choice: object) -> tuple[str | None, str | None]:
    """Return the wire's mode and the name of the one tool to be called, from any form of a tool choice.

    Raises:
        LMStudioValueError: If it is no choice.
    """
    if tool_choice is None:
        return None, None
    if isinstance(tool_choice, str | bool):
        mode = _MODES.get(tool_choice)
        return (mode, None) if mode else ("required", str(tool_choice))
    if is_object(tool_choice):
        function = tool_choice.get("function")
        name = function.get("name") if is_object(function) else tool_choice.get("name")
        if isinstance(name, str):
            return "required", name
        return choice_of(tool_choice.get("type"))
    raise LMStudioValueError(
        f"tool_choice must be 'auto', 'none', 'any', 'required' or the name of a tool; got {tool_choice!r}"
    )


def tool_settings(tools: Sequence[Mapping[str, Any]], tool_choice: object) -> dict[str, Any]:
    """Return the settings that offer tools; empty if there are none.

    A named tool is offered alone and required, because the wire has no other way to say so.

    Raises:
        LMStudioValueError: If the named tool is not among them, or a choice needs tools and there are none.
    """
    mode, name = choice_of(tool_choice)
    names = [str(tool["function"]["name"]) for tool in tools]
    if name is not None and name not in names:
        raise LMStudioValueError(f"tool_choice {name!r} is none of the tools: {', '.join(names) or 'there are none'}")
    if not tools:
        if mode == "required":
            raise LMStudioValueError("tool_choice requires a tool call, and there are no tools; bind some")
        return {}
    _check_distinct(names)
    offered = wire_tools([tool for tool in tools if name in {None, tool["function"]["name"]}])
    settings: dict[str, Any] = {"raw_tools": {"type": "toolArray", "tools": offered}}
    if mode is not None:
        settings["tool_choice"] = {"type": "generic", "mode": mode}
    return settings


def wire_tools(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return OpenAI dicts as the wire has tools (protocol §6.3)."""
    functions = (tool["function"] for tool in tools)
    return [wire_tool(wire_name(each["name"]), each.get("description"), each.get("parameters")) for each in functions]


def original_names(tools: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the tools' own names by the names that were sent, where the two differ."""
    names = [str(tool["function"]["name"]) for tool in tools]
    return {wire_name(name): name for name in names if wire_name(name) != name}


def _check_distinct(names: Sequence[str]) -> None:
    sent: dict[str, str] = {}
    for name in names:
        other = sent.setdefault(wire_name(name), name)
        if other != name:
            raise LMStudioValueError(f"the tools {other!r} and {name!r} both become {wire_name(name)!r}; rename one")


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


def is_required(settings: Mapping[str, Any]) -> bool:
    """Whether the settings require a tool call."""
    choice = settings.get("tool_choice")
    return is_object(choice) and choice.get("mode") == "required"


def schema_name(schema: Any) -> str:
    """Return the name under which a schema is a tool."""
    name: str = convert_to_openai_tool(schema)["function"]["name"]
    return name
