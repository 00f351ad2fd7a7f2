"""LlamaIndex's tools and answer formats to settings of a prediction. Pure.

Names are brought into what every server takes (letters, digits, `_`, `-`), because core registers a generic class as
`Box[int]`; `original_names` finds the way back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.tools import BaseTool
from pydantic import BaseModel

from lmstudio_integrations._adapters.schemas import wire_name, wire_tool
from lmstudio_integrations._narrow import is_object
from lmstudio_integrations.errors import LMStudioValueError

_MODES = {"auto": "auto", "none": "none", "any": "required", "required": "required"}
"""Choices by the wire's modes; any other text is the name of a tool."""


def openai_tools(tools: Sequence[BaseTool]) -> list[dict[str, Any]]:
    """Return tools in OpenAI's form, under their own names: plain data, which events may show.

    Raises:
        LMStudioValueError: If one has no name.
    """
    return [_openai_tool(tool) for tool in tools]


def _openai_tool(tool: BaseTool) -> dict[str, Any]:
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


def tool_settings(tools: Sequence[Any], tool_choice: object) -> dict[str, Any]:
    """Return the settings that offer tools; empty if there are none.

    A named tool is offered alone and required, because the wire has no other way to say so.

    Args:
        tools: Tools of LlamaIndex, or dicts in OpenAI's form.
        tool_choice: `auto`, `none`, `any` or `required`, the name of a tool, or OpenAI's dict for it.

    Raises:
        LMStudioValueError: If the named tool is not among them, or a choice needs tools and there are none.
    """
    functions = [_function(tool) for tool in tools]
    mode, name = _choice(tool_choice)
    names = [str(function["name"]) for function in functions]
    if name is not None and name not in names:
        raise LMStudioValueError(f"tool_choice {name!r} is none of the tools: {', '.join(names) or 'there are none'}")
    if not functions:
        if mode == "required":
            raise LMStudioValueError("tool_choice requires a tool call, and there are no tools; pass some")
        return {}
    _check_distinct(names)
    offered = [
        wire_tool(wire_name(function["name"]), function.get("description"), function.get("parameters"))
        for function in functions
        if name in {None, function["name"]}
    ]
    settings: dict[str, Any] = {"raw_tools": {"type": "toolArray", "tools": offered}}
    if mode is not None:
        settings["tool_choice"] = {"type": "generic", "mode": mode}
    return settings


def original_names(tools: Sequence[Any]) -> dict[str, str]:
    """Return the tools' own names by the names that were sent, where the two differ."""
    names = [str(_function(tool)["name"]) for tool in tools]
    return {wire_name(name): name for name in names if wire_name(name) != name}


def _function(tool: Any) -> Mapping[str, Any]:
    known = _openai_tool(tool) if isinstance(tool, BaseTool) else tool
    function = known.get("function") if is_object(known) else None
    if not is_object(function) or not isinstance(function.get("name"), str):
        raise LMStudioValueError(f"tools must be LlamaIndex tools or OpenAI function dicts, got {tool!r}")
    return function


def _check_distinct(names: Sequence[str]) -> None:
    sent: dict[str, str] = {}
    for name in names:
        other = sent.setdefault(wire_name(name), name)
        if other != name:
            raise LMStudioValueError(f"the tools {other!r} and {name!r} both become {wire_name(name)!r}; rename one")


def _choice(tool_choice: object) -> tuple[str | None, str | None]:
    """Return the wire's mode and the name of the one tool to be called."""
    if tool_choice is None:
        return None, None
    if isinstance(tool_choice, str):
        mode = _MODES.get(tool_choice)
        return (mode, None) if mode else ("required", tool_choice)
    if is_object(tool_choice):
        function = tool_choice.get("function")
        name = function.get("name") if is_object(function) else tool_choice.get("name")
        if isinstance(name, str):
            return "required", name
        if tool_choice.get("type") in _MODES:
            return _MODES[tool_choice["type"]], None
    raise LMStudioValueError(
        f"tool_choice must be 'auto', 'none', 'any', 'required' or the name of a tool; got {tool_choice!r}"
    )


def is_required(settings: Mapping[str, Any]) -> bool:
    """Whether the settings require a tool call."""
    choice = settings.get("tool_choice")
    return is_object(choice) and choice.get("mode") == "required"


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
