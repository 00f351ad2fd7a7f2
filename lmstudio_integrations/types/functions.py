"""Tools: their definitions, the calls that a model requests, their results, and Python functions as tools."""

import functools
import inspect
import logging
import math
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import UnionType
from typing import (
    Any,
    ClassVar,
    Literal,
    NotRequired,
    Required,
    Self,
    TypeAlias,
    TypedDict,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import typing_extensions
from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model

from lmstudio_integrations._support.secrets import without_secrets
from lmstudio_integrations._support.suggestions import reason_of
from lmstudio_integrations._support.text import shortened
from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._json_schemas import ArgumentSchema, class_schema, reject_lambda, wire_tool
from lmstudio_integrations.types._wire_model import TaggedModel, WireModel


class ToolCallRequest(TaggedModel):
    """A call that the model requests; `arguments` is parsed, never JSON text."""

    type: Literal["function"] = "function"
    id: str | None = None
    name: str
    arguments: dict[str, Any] | None = None


class ToolCallRequestPart(TaggedModel):
    """A tool call inside an assistant message."""

    type: Literal["toolCallRequest"] = "toolCallRequest"
    tool_call_request: ToolCallRequest


class ToolCallResultPart(TaggedModel):
    """The result of a tool, inside a tool message."""

    type: Literal["toolCallResult"] = "toolCallResult"
    content: str
    tool_call_id: str | None = None
    name: str | None = None


class ToolFunction(WireModel):
    """The name, description and parameters of a tool."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(TaggedModel):
    """The definition of a tool, as sent to the model."""

    type: Literal["function"] = "function"
    function: ToolFunction


logger: logging.Logger = logging.getLogger(__name__)


class ToolCallContext:
    """What `act` passes to a function that has a parameter of this type. The model sees nothing of it.

    A plugin of the emulator passes one, too, which reports to the client of the call.

    Attributes:
        name: The name of the tool.
        call_id: The number of the call within its `act`, as in the callbacks, or within the plugin.
    """

    def __init__(self, name: str, call_id: int, cancelled: threading.Event) -> None:
        self.name = name
        self.call_id = call_id
        self._cancelled = cancelled

    def status(self, text: str) -> None:
        """Log what the function is doing, as information."""
        logger.info("tool %r: %s", self.name, text)

    def warn(self, text: str) -> None:
        """Log a problem that the function has solved by itself, as a warning."""
        logger.warning("tool %r: %s", self.name, text)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the function any more.

        Then `act` has ended before it, by an error, Ctrl-C or a cancelled task, or the client of a plugin has aborted
        the call. An async function is cancelled then; a sync one should look here now and then, and return.
        """
        return self._cancelled.is_set()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, call_id={self.call_id})"


class ToolFunctionDefDict(TypedDict):
    """`ToolFunctionDef` as a dict."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    implementation: Callable[..., Any] | None
    repeatable: NotRequired[bool]


@dataclass(frozen=True)
class ToolFunctionDef:
    """A tool that is a Python function, sync or async.

    A function that a model cannot call is rejected with an `LMStudioValueError`.

    Attributes:
        name: The name that the model uses.
        description: What the tool does, for the model.
        parameters: The type of each argument, by name; or `{"type": …, "default": …}`. Or one JSON schema for all,
            `{"type": "object", "properties": …}`: the function then gets what the model wrote, checked and unchanged.
        implementation: The function; takes the arguments by name. It may have defaults of its own. `None` leaves the
            call to the program: `act` ends after the round with such a call.
        repeatable: Whether the model may make the same call any number of times, such as a poll; see
            `max_repeated_tool_calls` of `act`.
        context_parameters: The parameters of the function that get a `ToolCallContext`, by their type hints.
    """

    raised_errors: ClassVar[tuple[type[Exception], ...]] = ()
    """The exceptions of the function that end `act`. The model gets the text of any other."""
    name: str
    description: str
    parameters: Mapping[str, Any]
    implementation: Callable[..., Any] | None
    repeatable: bool = field(default=False, kw_only=True)
    context_parameters: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _defaults: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for member, (fits, requirement) in _MEMBERS.items():
            value = getattr(self, member)
            if not fits(value):
                raise LMStudioValueError(f"the {member} of a tool must be {requirement}; got {value!r}")
        object.__setattr__(self, "context_parameters", _context_parameters(self.implementation))
        object.__setattr__(self, "_defaults", _defaults_of(self.implementation))
        if self._has_json_schema:
            _ = self._argument_schema  # reading it raises an error for what is no schema
        else:
            self._check_types()
        properties = self._schema["function"]["parameters"]["properties"]
        for name in self.context_parameters:
            if name in properties:
                raise LMStudioValueError(
                    f"tool {self.name!r}: parameter {name!r} gets the ToolCallContext, so the model must not set it; "
                    "remove it from parameters, or rename it"
                )

    def _check_types(self) -> None:
        """Reject types by name of which no schema can be made."""
        for name, kind in self.parameters.items():
            if is_mapping(kind) and isinstance(kind.get("type", ""), str):
                raise LMStudioValueError(
                    f"tool {self.name!r}: parameter {name!r} needs a Python type as 'type'; got {kind!r}; a JSON "
                    "schema describes all parameters: {'type': 'object', 'properties': …}"
                )
        try:
            _ = self._schema
        except (PydanticUserError, LMStudioValueError, SyntaxError) as error:  # a type may be a text with its name
            raise LMStudioValueError(
                f"tool {self.name!r} has a parameter of unusable type; use what JSON can hold: {reason_of(error)}"
            ) from error

    @classmethod
    def from_callable(
        cls,
        implementation: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        repeatable: bool = False,
    ) -> Self:
        """Take name, description and parameters from a function's name, docstring and type hints.

        Raises:
            LMStudioValueError: If it is a lambda without `name`, there is no docstring, or a parameter has no type hint
                or cannot be named.
        """
        label = name or str(getattr(implementation, "__name__", type(implementation).__name__))
        reject_lambda(label)
        text = description or inspect.getdoc(implementation)
        if not text:
            raise LMStudioValueError(f"tool {label!r} has no docstring; write one, or pass description=")
        return cls(label, text, _parameters_of(implementation, label), implementation, repeatable=repeatable)

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
        return Tool.from_dict(self._schema)

    def check(self, arguments: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the arguments in the types of the parameters, with the defaults that are only in `parameters`.

        Raises:
            LMStudioValueError: If they do not fit.
        """
        values = dict(arguments or {})
        if self._has_json_schema:
            try:
                found = self._argument_schema.problems(values)
            except Exception as error:  # noqa: BLE001 - servers accept schemas that `jsonschema` fails over in many ways
                found = [f"the schema of the tool cannot be used: {error}"]
            if found:
                raise self._invalid(found)
            return values
        try:
            checked = self._arguments.model_validate(values)
        except ValidationError as error:
            problem = without_secrets(error)
        else:
            return self._checked(checked)
        raise self._invalid(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in problem.errors(include_url=False)
        ) from problem

    def _checked(self, checked: BaseModel) -> dict[str, Any]:
        return {
            name: getattr(checked, field)
            for field, (name, kind) in zip(type(checked).model_fields, self.parameters.items(), strict=True)
            if field in checked.model_fields_set or (is_mapping(kind) and "default" in kind)
        }

    def _invalid(self, problems: Iterable[str]) -> LMStudioValueError:
        return LMStudioValueError(f"Failed to parse arguments for tool {self.name}: {shortened('; '.join(problems))}")

    @property
    def _has_json_schema(self) -> bool:
        return self.parameters.get("type") == "object"

    @cached_property
    def _argument_schema(self) -> ArgumentSchema:
        return ArgumentSchema(self.parameters, self.name)

    @cached_property
    def _schema(self) -> dict[str, Any]:
        """The definition in wire form."""
        schema = self.parameters if self._has_json_schema else class_schema(self._arguments)
        return wire_tool(self.name, self.description, schema)

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
    "implementation": (lambda value: value is None or callable(value), "a function, or None"),
    "repeatable": (lambda value: isinstance(value, bool), "True or False"),
}

_NAMEABLE = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


def parse_tools(tools: Iterable[ToolInput]) -> dict[str, ToolFunctionDef]:
    """Return tools by name.

    Raises:
        LMStudioValueError: If there are none, or two of one name.
    """
    by_name: dict[str, ToolFunctionDef] = {}
    for tool in map(ToolFunctionDef.parse, tools):
        if tool.name in by_name:
            raise LMStudioValueError(f"duplicate tool names are not permitted ({tool.name!r} is already defined)")
        by_name[tool.name] = tool
    if not by_name:
        raise LMStudioValueError("tool use needs at least one tool; without tools call respond()")
    return by_name


def _parameters_of(implementation: Callable[..., Any], name: str) -> dict[str, Any]:
    if isinstance(implementation, functools.partial):  # its hints depend on what inspected its class before
        raise LMStudioValueError(f"tool {name!r}: a partial has no type hints; wrap it in a function that has")
    try:
        hints = get_type_hints(implementation, include_extras=True)
        parameters = inspect.signature(implementation).parameters
    except (TypeError, NameError, ValueError, SyntaxError) as error:
        raise LMStudioValueError(f"tool {name!r}: its type hints cannot be read: {error}") from error
    for parameter in parameters.values():
        if parameter.kind not in _NAMEABLE:
            raise LMStudioValueError(f"tool {name!r}: parameter {parameter.name!r} cannot be passed by name")
        if parameter.name not in hints:
            raise LMStudioValueError(
                f"tool {name!r}: parameter {parameter.name!r} has no type hint; write one, for example "
                f"{parameter.name}: str"
            )
    return {parameter: hints[parameter] for parameter in parameters if not _is_context(hints[parameter])}


def _context_parameters(implementation: Callable[..., Any] | None) -> tuple[str, ...]:
    """Return the parameters with the type of a context, also where it is optional."""
    function: Any = implementation
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    try:
        hints = get_type_hints(function, include_extras=True)
        return tuple(
            name for name in inspect.signature(implementation or function).parameters if _is_context(hints.get(name))
        )
    except Exception:  # noqa: BLE001 - a function that is described by hand may have any hints
        return ()


def _is_context(kind: object) -> bool:
    return any(each is ToolCallContext for each in (kind, *get_args(kind)))


def _field(name: str, kind: Any, default: Any) -> tuple[Any, Any]:
    """Return the type and the field of a parameter, which may be a dict of `type` and `default`."""
    if is_mapping(kind):
        kind, default = kind["type"], kind.get("default", default)
    kind = for_pydantic(kind)
    if isinstance(default, float) and not math.isfinite(default):
        # JSON has no such number, so it is not sent to the model.
        return kind, Field(default_factory=lambda: default, alias=name)
    return kind, Field(default=default, alias=name)


def for_pydantic(kind: Any, within: tuple[Any, ...] = ()) -> Any:
    """Return a type with each `TypedDict` as one that pydantic takes on Python 3.11, too; a recursive one stays."""
    if sys.version_info >= (3, 12) or kind in within:
        return kind
    if is_typeddict(kind):
        members = {
            name: get_args(hint)[0] if get_origin(hint) in {Required, NotRequired} else hint
            for name, hint in get_type_hints(kind, include_extras=True).items()
        }
        converted = {name: for_pydantic(hint, (*within, kind)) for name, hint in members.items()}
        optional: Any = {name: NotRequired[converted[name]] for name in kind.__optional_keys__}
        make: Any = typing_extensions.TypedDict
        made = make(kind.__name__, {**converted, **optional})
        made.__doc__ = kind.__doc__
        return made
    arguments = get_args(kind)
    converted_arguments = tuple(for_pydantic(each, within) for each in arguments)
    if converted_arguments == arguments:
        return kind
    origin: Any = get_origin(kind)
    return (Union if origin is UnionType else origin)[converted_arguments]


def _defaults_of(implementation: Callable[..., Any] | None) -> dict[str, Any]:
    if implementation is None:
        return {}
    try:
        parameters = inspect.signature(implementation).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
