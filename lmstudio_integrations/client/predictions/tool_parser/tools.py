"""The tools that a request offers, as far as calls in a text must fit them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from lmstudio_integrations._support.text import dumps
from lmstudio_integrations._support.threads import BoundedCache
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.predictions.tool_parser.lenient_json import (
    CutOffError,
    NoCallError,
    TextCursor,
    read_value,
)
from lmstudio_integrations.types._json_schemas import ArgumentSchema, Misfit

_NAMESPACES = ("functions.", "function.", "tools.", "tool.", "default_api.")
"""What models put before the name of a tool."""

WRAPPERS = frozenset({"call", "function", "print", "tool"})
"""What may stand before the name of a tool, and be taken for one."""

_UNSAFE = re.compile(r"[^\w-]")

_schemas: BoundedCache[tuple[str, str], ArgumentSchema] = BoundedCache(128)
"""The last schemas by tool and text: it takes longer to make one than to check arguments."""


class OfferedTool:
    """One tool.

    Args:
        function: The `function` of its definition in wire form (`docs/protocol.md#tool-definitions`).
    """

    def __init__(self, function: Mapping[str, Any]) -> None:
        self.name: str = function["name"]
        parameters = function.get("parameters")
        self.schema: Mapping[str, Any] = parameters if is_object(parameters) else {}
        properties = self.schema.get("properties")
        self.parameters: Mapping[str, Any] = properties if is_object(properties) else {}

    def with_name(self, name: str) -> "OfferedTool":
        """Return the tool under another name."""
        return OfferedTool({"name": name, "parameters": self.schema})

    def problem(self, arguments: Mapping[str, Any], *, only_known: bool = False) -> str | None:
        """Return why arguments do not fit; `None` if they do.

        Args:
            arguments: The arguments.
            only_known: Whether arguments that the schema allows and does not name are a problem, too.

        Raises:
            NoCallError: If it cannot be known, because the schema cannot be used.
        """
        unknown = arguments.keys() - self.parameters.keys() if only_known else ()
        if unknown:
            return f"unknown arguments: {', '.join(sorted(unknown))}"
        return "; ".join(self._problems(arguments)) or None

    def fitting(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments with the values that strings stand for where only those fit, such as numbers."""
        return {
            name: self._fitting(name, value) if isinstance(value, str) else value for name, value in arguments.items()
        }

    def _fitting(self, name: str, text: str) -> Any:
        for value in (text, text.strip(), *values_of(text)):
            if not any(each.startswith((f"{name}:", f"{name}.")) for each in self._problems({name: value})):
                return value
        return text

    def misfits(self, arguments: dict[str, Any]) -> list[Misfit]:
        """Return which values in arguments do not fit.

        Raises:
            NoCallError: If it cannot be known, because the schema cannot be used.
        """
        try:
            return self._validator.misfits(arguments)
        except Exception as error:  # servers accept schemas that `jsonschema` fails over in many ways
            raise NoCallError from error

    def accepts(self, value: Any, schema: Mapping[str, Any]) -> bool:
        """Whether a value fits a part of the schema.

        Raises:
            NoCallError: If it cannot be known, because the part cannot be used.
        """
        try:
            return self._validator.accepts(value, schema)
        except Exception as error:  # what is not an error before may use another part
            raise NoCallError from error

    def _problems(self, arguments: Mapping[str, Any]) -> list[str]:
        try:
            return self._validator.problems(arguments)
        except Exception as error:
            raise NoCallError from error

    @cached_property
    def _validator(self) -> ArgumentSchema:
        return _schemas.get_or_make((self.name, dumps(self.schema)), lambda: ArgumentSchema(self.schema, self.name))


class OfferedTools:
    """The tools of a request by name.

    Args:
        definitions: Their definitions in wire form.
    """

    def __init__(self, definitions: Iterable[Mapping[str, Any]]) -> None:
        functions = [each.get("function") for each in definitions if is_object(each)]
        with_names = [each for each in functions if is_object(each) and isinstance(each.get("name"), str)]
        self._tools = {tool.name: tool for tool in map(OfferedTool, with_names)}

    def __iter__(self) -> Iterator[OfferedTool]:
        return iter(self._tools.values())

    def find(self, name: str) -> OfferedTool | None:
        """Return the tool that a model means by a name."""
        for prefix in _NAMESPACES:
            if name not in self._tools:
                name = name.removeprefix(prefix)
        return self._tools.get(name) or self._tools.get(_UNSAFE.sub("_", name))

    def name_in(self, text: str) -> str | None:
        """Return the first name of a tool that a text contains as a word."""
        words = re.findall(r"[\w-]+(?:\.[\w-]+)*", text)
        return next((word for word in words if word in self._tools), None)

    def begins(self, text: str) -> bool:
        """Whether a text begins with the name of a tool."""
        return text.startswith((*self._tools, *_NAMESPACES))

    def may_begin(self, text: str) -> bool:
        """Whether a text is the beginning of a name, or of what stands before one."""
        return any(word.startswith((text, _UNSAFE.sub("_", text))) for word in (*self._tools, *_NAMESPACES, *WRAPPERS))


def values_of(text: str) -> Sequence[Any]:
    """Return the value that a text stands for, if it stands for one."""
    # A bracket must follow on what is no string.
    cursor = TextCursor(text.strip() + "]")
    try:
        value = read_value(cursor)
    except (NoCallError, CutOffError):
        return ()
    return (value,) if cursor.at == len(cursor.text) - 1 else ()
