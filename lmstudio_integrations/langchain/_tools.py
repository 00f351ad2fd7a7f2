"""Converts LangChain's tools to OpenAI dicts, and response formats to JSON schemas. Pure.

langchain-core's own conversion drops recursive schemas and those of no object. So it is only used for what it alone
knows: `TypedDict`s, and the dicts of other providers.
"""

from collections.abc import Mapping
from enum import Enum
from inspect import isroutine
from typing import Annotated, Any, NewType, NotRequired, Required, get_args, get_origin, get_type_hints

from langchain_core.tools import BaseTool, Tool, create_schema_from_function
from langchain_core.utils.function_calling import convert_to_openai_function
from pydantic import BaseModel, Field, TypeAdapter
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import TypedDict, is_typeddict

from lmstudio_integrations._adapters.request_tools import reject_built_in, with_warning
from lmstudio_integrations._support.suggestions import reason_of
from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_iterable, is_list, is_object
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._json_schemas import DATA, class_schema, inlined
from lmstudio_integrations.types.functions import for_pydantic

_TOOL_TYPES = "functions whose arguments have JSON types, pydantic classes, LangChain tools or OpenAI function dicts"

_TOOL_MEMBERS = frozenset({"function", "parameters", "input_schema", "toolSpec"})
"""Members of the tool dicts of OpenAI, Anthropic and Bedrock. No JSON schema has them."""


def openai_tools(tools: object, *, strict: bool | None = None) -> list[dict[str, Any]]:
    """Return tools of any kind as OpenAI dicts.

    Raises:
        LMStudioValueError: If one cannot be called by name with JSON arguments, or they are no list.
    """
    if not is_iterable(tools) or isinstance(tools, str | Mapping | BaseTool):
        raise LMStudioValueError(f"tools must be a list of {_TOOL_TYPES}; got {tools!r}")
    return [_check_tool(tool, strict=strict) for tool in tools]


def _check_tool(tool: Any, *, strict: bool | None) -> dict[str, Any]:
    try:
        return openai_tool(tool, strict=strict)
    except LMStudioValueError:
        raise
    except Exception as error:  # a tool's annotations may raise anything
        raise LMStudioValueError(f"{shown(tool)} cannot be a tool: {reason_of(error)}; give {_TOOL_TYPES}") from error


def openai_tool(tool: Any, *, strict: bool | None = None) -> dict[str, Any]:
    """Return a tool of any kind as an OpenAI dict. May raise any exception, from the tool's own code."""
    function = _function(tool)
    if strict:
        function = {**function, "strict": True, "parameters": _close_objects(function.get("parameters") or {})}
    return {"type": "function", "function": function}


def _function(tool: Any) -> dict[str, Any]:
    """Return the `function` of a tool: name, description, and the schema of the arguments."""
    if is_object(tool):
        return _function_of_dict(tool)
    reject_type_of_field(tool)
    if is_pydantic(tool):
        return _describe(_class_schema(tool))
    if isinstance(tool, BaseTool) and not isinstance(tool, Tool):  # only core can name the single argument of a `Tool`
        arguments: Any = tool.tool_call_schema
        if is_object(arguments):
            return _describe(arguments, tool.name, tool.description)
        return with_warning(_describe(_class_schema(arguments), tool.name, tool.description))
    if isroutine(tool):
        model = create_schema_from_function(
            tool.__name__, tool, filter_args=(), parse_docstring=True, include_injected=False
        )
        return with_warning(_describe(_class_schema(model), tool.__name__, model.__doc__))
    if not callable(tool) and not isinstance(tool, Tool):
        raise TypeError(f"it is a {type(tool).__name__}")
    return _function_of_typed_dict(tool) if is_typeddict(tool) else convert_to_openai_function(tool)


def _function_of_typed_dict(kind: Any) -> dict[str, Any]:
    try:
        return convert_to_openai_function(kind)
    except Exception:  # noqa: BLE001 - core's conversion knows neither `NotRequired` nor `Required`
        return _describe(TypeAdapter[Any](_in_pydantics_form(kind)).json_schema())


def _in_pydantics_form(kind: Any) -> Any:
    """Return a `TypedDict` whose members have in a `Field` what core reads from `Annotated`."""
    members: dict[str, Any] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        member, is_required = required_member(kind, name, hint)
        plain, *metadata = get_args(member) if get_origin(member) is Annotated else (member,)
        description = next((each for each in reversed(metadata) if isinstance(each, str)), None)
        has_default = len(metadata) > 1 and metadata[0] is not ...
        described: Any = Annotated[for_pydantic(plain), Field(description=description)]
        members[name] = described if is_required and not has_default else NotRequired[described]
    make: Any = TypedDict
    made = make(kind.__name__, members)
    made.__doc__ = kind.__doc__
    return made


def required_member(kind: Any, name: str, hint: Any) -> tuple[Any, bool]:
    """Return the type of a member of a `TypedDict`, and whether it must be there."""
    qualifier = get_origin(hint)
    if qualifier in {Required, NotRequired}:
        return get_args(hint)[0], qualifier is Required
    return hint, name in kind.__required_keys__


def _function_of_dict(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if is_object(function):
        return function
    if tool.keys() & _TOOL_MEMBERS:
        return convert_to_openai_function(tool)
    reject_built_in(tool)
    nested = _response_format(tool)
    if nested is not None:
        return _describe(_schema(nested.get("schema") or {}), nested.get("name"), nested.get("description"))
    return _describe({key: value for key, value in tool.items() if key != "name"}, tool.get("name"))


def _describe(schema: Mapping[str, Any], name: str | None = None, description: str | None = None) -> dict[str, Any]:
    """Return a function with the schema of its arguments, which also provides a missing name and description.

    Titles are dropped: they cost tokens of the prompt and only repeat the names.
    """
    flat = inlined(schema)
    title, schema_description = flat.pop("title", None), flat.pop("description", None)
    if not (name or title):
        raise ValueError("it has no name, and its schema has no title that could be one")
    if flat and flat.get("type") != "object" and "properties" not in flat:
        raise ValueError("arguments are an object with properties, and its schema is of another type")
    description = description or schema_description
    described = {"name": name or title, "description": description, "parameters": _drop_titles(flat)}
    return {key: value for key, value in described.items() if value is not None}


def _drop_titles(node: Any) -> Any:
    """Return a part of a schema without titles; a property called `title` stays."""
    if is_list(node):
        return [_drop_titles(item) for item in node]
    if not is_object(node):
        return node
    return {
        key: value if key in DATA else _drop_titles(value)
        for key, value in node.items()
        if key != "title" or not isinstance(value, str)
    }


def json_schema(schema: Any, *, strict: bool | None = None) -> dict[str, Any]:
    """Return the JSON schema of a pydantic class, a TypedDict, an OpenAI dict, or a JSON schema itself."""
    flat = inlined(_schema(schema))
    return _close_objects(flat) if strict else flat


def _schema(source: Any) -> dict[str, Any]:
    if is_pydantic(source):
        return _class_schema(source)
    if is_object(source) and not source.keys() & _TOOL_MEMBERS:
        nested = _response_format(source)
        if nested is not None:
            return _schema(nested.get("schema") or {})
        return {key: value for key, value in source.items() if key != "strict"}
    function = _function(source)
    described = {"title": function["name"], "description": function.get("description")}
    return {**{key: value for key, value in described.items() if value}, **(function.get("parameters") or {})}


def _response_format(source: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the part of an OpenAI response format that contains the schema; `None` for any other dict."""
    nested = source.get("json_schema")
    if is_object(nested):
        return nested
    return source if "schema" in source and ("name" in source or source.get("type") == "json_schema") else None


def _class_schema(kind: Any) -> dict[str, Any]:
    schema: dict[str, Any] = class_schema(kind) if issubclass(kind, BaseModel) else kind.schema()
    return schema


def _close_objects(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose objects have exactly the named members, as OpenAI's strict mode requires."""
    schema = schema or {"type": "object", "properties": {}}
    closed: dict[str, Any] = convert_to_openai_function({"name": "", "parameters": schema}, strict=True)["parameters"]
    return closed


def reject_type_of_field(schema: object) -> None:
    """Raise `TypeError` for a type without fields, whose constructor langchain-core would mistake for a function.

    An enum is one, and so are `list[int]`, `Literal["a"]` and a `NewType` since Python 3.14, which finds annotations of
    everything that can be called.
    """
    is_enum = isinstance(schema, type) and issubclass(schema, Enum)
    if is_enum or get_origin(schema) is not None or isinstance(schema, NewType):
        raise TypeError(
            f"it is {'an enum' if is_enum else 'no class'}; make it the type of a field of a pydantic class"
        )


def is_pydantic(schema: object) -> bool:
    """Whether a schema is a pydantic class, of version 2 or 1."""
    return isinstance(schema, type) and issubclass(schema, BaseModel | BaseModelV1)


def response_schema(response_format: Any) -> dict[str, Any]:
    """Return the JSON schema of a response format: a schema of any kind, or an OpenAI dict.

    Raises:
        LMStudioValueError: If it is something else.
    """
    try:
        return json_schema(response_format)
    except Exception as error:  # a schema's annotations may raise anything
        raise LMStudioValueError(
            f"response_format must be a schema or an OpenAI dict, got {response_format!r}: {reason_of(error)}"
        ) from error
