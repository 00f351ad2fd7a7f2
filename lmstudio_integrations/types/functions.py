"""Python functions as tools: their schema from type hints, and the call with checked arguments."""

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self, TypeAlias, TypedDict, cast, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model

from lmstudio_integrations._typeguards import is_mapping
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.tools import Tool, ToolFunction


class ToolFunctionDefDict(TypedDict):
    """`ToolFunctionDef` as a dict."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    implementation: Callable[..., Any]


@dataclass(frozen=True)
class ToolFunctionDef:
    """A tool that is a Python function, sync or async.

    A function that a model cannot call is rejected with an `LMStudioValueError`.

    Attributes:
        name: The name that the model uses.
        description: What the tool does, for the model.
        parameters: The type of each argument, by name; or `{"type": …, "default": …}`.
        implementation: The function; takes the arguments by name. It may have defaults of its own.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    implementation: Callable[..., Any]
    _defaults: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for member, (fits, requirement) in _MEMBERS.items():
            value = getattr(self, member)
            if not fits(value):
                raise LMStudioValueError(f"the {member} of a tool must be {requirement}; got {value!r}")
        for name, kind in self.parameters.items():
            if is_mapping(kind) and "type" not in kind:
                raise LMStudioValueError(f"tool {self.name!r}: parameter {name!r} has no 'type'; got {kind!r}")
        object.__setattr__(self, "_defaults", _defaults_of(self.implementation))
        try:
            _ = self._schema
        except PydanticUserError as error:
            reason = str(error).partition("\n")[0]
            raise LMStudioValueError(
                f"tool {self.name!r} has a parameter of unusable type; use what JSON can hold: {reason}"
            ) from error

    @classmethod
    def from_callable(
        cls, implementation: Callable[..., Any], *, name: str | None = None, description: str | None = None
    ) -> Self:
        """Take name, description and parameters from a function's name, docstring and type hints.

        Raises:
            LMStudioValueError: If there is no docstring, or a parameter has no type hint or cannot be named.
        """
        found = name or str(getattr(implementation, "__name__", type(implementation).__name__))
        text = description or inspect.getdoc(implementation)
        if not text:
            raise LMStudioValueError(f"tool {found!r} has no docstring; write one, or pass description=")
        return cls(found, text, _parameters_of(implementation, found), implementation)

    @classmethod
    def parse(cls, tool: "ToolInput") -> "ToolFunctionDef":
        """Accept a definition, its dict, or a function.

        Raises:
            LMStudioValueError: If it is none of these.
        """
        if isinstance(tool, ToolFunctionDef):
            return tool
        if isinstance(tool, Mapping):
            try:
                return cls(**cast("dict[str, Any]", tool))
            except TypeError as error:
                raise LMStudioValueError(
                    f"a tool needs name, description, parameters, implementation: {error}"
                ) from error
        if callable(tool):
            return cls.from_callable(tool)
        raise LMStudioValueError(f"a tool must be a function or a ToolFunctionDef, got {tool!r}")

    @property
    def is_async(self) -> bool:
        """Whether the function is known to be a coroutine function; others may return an awaitable, too."""
        called = type(self.implementation).__call__
        return inspect.iscoroutinefunction(self.implementation) or inspect.iscoroutinefunction(called)

    def to_tool(self) -> Tool:
        """Return the definition that is sent to the model."""
        return Tool(function=ToolFunction(name=self.name, description=self.description, parameters=self._schema))

    def check(self, arguments: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the arguments in the types of the parameters, with the defaults that are only in `parameters`.

        Raises:
            LMStudioValueError: If they do not fit.
        """
        try:
            checked = self._arguments.model_validate(dict(arguments or {}))
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)
            )
            raise LMStudioValueError(f"Failed to parse arguments for tool {self.name}: {problems}") from error
        return {
            name: getattr(checked, field)
            for field, (name, kind) in zip(type(checked).model_fields, self.parameters.items(), strict=True)
            if field in checked.model_fields_set or (is_mapping(kind) and "default" in kind)
        }

    @cached_property
    def _schema(self) -> dict[str, Any]:
        schema = self._arguments.model_json_schema()
        return {key: value for key, value in schema.items() if key in _SCHEMA_MEMBERS}

    @cached_property
    def _arguments(self) -> type[BaseModel]:
        """The arguments as a model. Its fields are numbered, so that a parameter may have any name."""
        fields: dict[str, Any] = {
            f"p{number}": _field(name, kind, self._defaults.get(name, ...))
            for number, (name, kind) in enumerate(self.parameters.items())
        }
        return create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)


ToolInput: TypeAlias = ToolFunctionDef | ToolFunctionDefDict | Callable[..., Any]

_MEMBERS: dict[str, tuple[Callable[[object], bool], str]] = {
    "name": (lambda value: isinstance(value, str), "a string"),
    "description": (lambda value: isinstance(value, str), "a string"),
    "parameters": (
        lambda value: is_mapping(value) and all(isinstance(name, str) for name in value),
        "a dict of types by name",
    ),
    "implementation": (callable, "a function"),
}

_SCHEMA_MEMBERS = {"type", "properties", "required", "additionalProperties", "$defs"}
_NAMEABLE = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


def parse_tools(tools: Iterable[ToolInput]) -> dict[str, ToolFunctionDef]:
    """Return tools by name.

    Raises:
        LMStudioValueError: If there are none, or two of one name.
    """
    found: dict[str, ToolFunctionDef] = {}
    for tool in map(ToolFunctionDef.parse, tools):
        if tool.name in found:
            raise LMStudioValueError(f"duplicate tool names are not permitted ({tool.name!r} is already defined)")
        found[tool.name] = tool
    if not found:
        raise LMStudioValueError("tool use needs at least one tool; without tools call respond()")
    return found


def _parameters_of(implementation: Callable[..., Any], name: str) -> dict[str, Any]:
    if isinstance(implementation, functools.partial):  # its hints depend on what inspected its class before
        raise LMStudioValueError(f"tool {name!r}: a partial has no type hints; wrap it in a function that has")
    try:
        hints = get_type_hints(implementation, include_extras=True)
        parameters = inspect.signature(implementation).parameters
    except (TypeError, NameError, ValueError) as error:
        raise LMStudioValueError(f"tool {name!r}: its type hints cannot be read: {error}") from error
    for parameter in parameters.values():
        if parameter.kind not in _NAMEABLE:
            raise LMStudioValueError(f"tool {name!r}: parameter {parameter.name!r} cannot be passed by name")
        if parameter.name not in hints:
            raise LMStudioValueError(
                f"tool {name!r}: parameter {parameter.name!r} has no type hint; write one, for example "
                f"{parameter.name}: str"
            )
    return {parameter: hints[parameter] for parameter in parameters}


def _field(name: str, kind: Any, default: Any) -> tuple[Any, Any]:
    """Return the type and the field of a parameter, which may be a dict of `type` and `default`."""
    if is_mapping(kind):
        kind, default = kind["type"], kind.get("default", default)
    if isinstance(default, float) and not math.isfinite(default):
        # JSON has no such number, so it is not sent to the model.
        return kind, Field(default_factory=lambda: default, alias=name)
    return kind, Field(default=default, alias=name)


def _defaults_of(implementation: Callable[..., Any]) -> dict[str, Any]:
    try:
        parameters = inspect.signature(implementation).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
