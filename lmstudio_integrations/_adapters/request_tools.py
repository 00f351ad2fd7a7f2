"""Converts tools and a tool choice to settings of a prediction. Pure.

The frameworks' adapters pass their tools as OpenAI dicts. Names are changed to what every server accepts;
`ToolUse` maps them back. The wire: `docs/protocol.md#tool-definitions`.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.errors import LMStudioConfigWarning, LMStudioValueError
from lmstudio_integrations.types._json_schemas import reject_lambda, wire_tool

_SIGNATURE = re.compile(r"(?<!\w)\w++\(")
"""The beginning of one. From there on, a search would take the square of the length."""

_OTHER = re.compile(r"[^a-zA-Z0-9_-]")
_TYPES = frozenset({"type", "anyOf", "oneOf", "allOf", "$ref", "enum", "const"})
"""Members of a JSON schema that limit the type of a value."""

_OWN_TYPES = {"function", "custom", "json_schema", "object", "array", "string", "number", "integer", "boolean", "null"}
"""Types in dicts that describe a tool or its arguments, or that are rejected for another reason."""

_UNTYPED_BUILT_IN = frozenset(
    {"google_search", "google_search_retrieval", "google_maps", "code_execution", "url_context", "computer_use"}
    | {"file_search", "enterprise_web_search"}
)
"""Google's built-in tools: the dict of one has its name as key, and no type."""

OpenAITool = Mapping[str, Any]
"""`{"type": "function", "function": {"name": …, "description": …, "parameters": …}}`."""

_MODES = {
    "auto": "auto",
    "none": "none",
    "any": "required",
    "required": "required",
    True: "required",
    False: "auto",
}
"""The wire's modes for the choices of OpenAI and the frameworks; any other string is the name of a tool."""


class ToolUse(NamedTuple):
    """How a call uses tools.

    Attributes:
        required: Whether the response must contain a tool call.
        parallel: Whether it may contain several; otherwise the first is kept.
        names: The tools' own names by the names that are sent; `None` if tools may come from elsewhere, as a preset.
        choice: The required tool, or `required` for any of them.
    """

    required: bool = False
    parallel: bool = True
    names: Mapping[str, str] | None = None
    choice: str = "required"

    @classmethod
    def of(
        cls, tools: Sequence[OpenAITool], settings: Mapping[str, Any], *, parallel: bool, tool_choice: object = None
    ) -> Self:
        """Return how a call with these tools uses them, as its `tool_settings` say."""
        sent = {tool["function"]["name"] for tool in settings.get("raw_tools", {}).get("tools", ())}
        own = (function["name"] for function in _functions(tools))
        names = {wire_name(name): name for name in own if wire_name(name) in sent}
        choice = settings.get("tool_choice")
        required = is_object(choice) and choice.get("mode") == "required"
        return cls(required, parallel, names, choice_of(tool_choice)[1] or "required")

    def own_name(self, name: str) -> str:
        """Return a tool's own name."""
        return (self.names or {}).get(name, name)


def choice_of(tool_choice: object) -> tuple[str | None, str | None]:
    """Return the wire's mode and the name of the chosen tool, from any form of a tool choice.

    Raises:
        LMStudioValueError: If it is invalid.
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
        kind = tool_choice.get("type")
        if isinstance(kind, str) and kind in _MODES:
            return _MODES[kind], None
    raise LMStudioValueError(
        f"tool_choice must be 'auto', 'none', 'any', 'required' or the name of a tool; got {tool_choice!r}"
    )


def tool_settings(tools: Sequence[OpenAITool], tool_choice: object) -> dict[str, Any]:
    """Return the native settings for tools; empty without tools.

    A named tool is sent alone and required, because the wire cannot name a tool.

    Args:
        tools: The tools.
        tool_choice: `auto`, `none`, `any` or `required`, the name of a tool, or OpenAI's dict for it.

    Raises:
        LMStudioValueError: If the named tool is not among them, a choice needs tools and there are none, or two tools
            have one name.
    """
    mode, name = choice_of(tool_choice)
    functions = _functions(tools)
    names = [function["name"] for function in functions]
    if name is not None and name not in names:
        raise LMStudioValueError(f"tool_choice {name!r} is none of the tools: {', '.join(names) or 'there are none'}")
    if not tools:
        if mode == "required":
            raise LMStudioValueError("tool_choice requires a tool call, and there are no tools; pass some")
        return {}
    _check_distinct(names)
    definitions = [_wire_form(function) for function in functions if name in {None, function["name"]}]
    settings: dict[str, Any] = {"raw_tools": {"type": "toolArray", "tools": definitions}}
    if mode is not None:
        settings["tool_choice"] = {"type": "generic", "mode": mode}
    return settings


def wire_tools(tools: Sequence[OpenAITool]) -> list[dict[str, Any]]:
    """Return tools in wire form.

    Raises:
        LMStudioValueError: If one is not an OpenAI function.
    """
    return [_wire_form(function) for function in _functions(tools)]


def wire_name(name: str) -> str:
    """Return a tool's name as it is sent: the letters and digits of any script, `_` and `-`; `_` for all else."""
    return _OTHER.sub(lambda match: match[0] if _is_in_word(match[0]) else "_", unicodedata.normalize("NFC", name))


def _is_in_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character)[0] == "M"  # the vowels of some scripts are marks


def reject_built_in(tool: Mapping[str, Any]) -> None:
    """Reject the dict of a tool that runs on the server of its provider, such as `{"type": "web_search_preview"}`.

    Raises:
        LMStudioValueError: If it is one.
    """
    kind = tool.get("type")
    built_in = {kind} - _OWN_TYPES if isinstance(kind, str) else tool.keys() & _UNTYPED_BUILT_IN
    if built_in:
        # Without the rest of the dict, which may contain a token.
        raise LMStudioValueError(
            f"the tool {min(built_in)!r} runs on the server of another provider, and LM Studio's server has no "
            "built-in tools; pass a function that does the same"
        )


def with_warning(function: dict[str, Any]) -> dict[str, Any]:
    """Return the function of a tool made from Python code; warn if the model must guess what the tool is for.

    Dicts are not checked: tools of others may describe themselves as they like.

    Raises:
        LMStudioValueError: If it is a lambda.
    """
    reject_lambda(function["name"])
    parameters: dict[str, Any] = function.get("parameters") or {}
    properties: dict[str, Any] = parameters.get("properties") or {}
    untyped = [name for name, schema in properties.items() if is_object(schema) and not schema.keys() & _TYPES]
    missing = [f"a type for {', '.join(map(repr, untyped))}"] if untyped else []
    if not any(map(_is_text, (function.get("description") or "").split("\n"))):
        missing.insert(0, "a description")
    if missing:
        warn_user(
            f"tool {function['name']!r} lacks {' and '.join(missing)}, so the model has to guess; write a docstring "
            "and type hints",
            LMStudioConfigWarning,
        )
    return function


def _is_text(line: str) -> bool:
    """Whether a line of a description is more than a signature, which LlamaIndex puts before the docstring."""
    signature = _SIGNATURE.search(line, 0, line.rfind(")") + 1)
    return bool((line if signature is None else line[: signature.start()]).strip())


def _functions(tools: Sequence[OpenAITool]) -> list[dict[str, Any]]:
    """Return the `function` members of OpenAI dicts, checked."""
    functions: list[dict[str, Any]] = [tool["function"] for tool in tools]
    for function in functions:
        name, parameters = function.get("name"), function.get("parameters")
        if not isinstance(name, str) or not name or not (parameters is None or is_object(parameters)):
            raise LMStudioValueError(
                f"a tool's function needs a string as name, and a JSON schema (a dict) as parameters; got {function!r}"
            )
    return functions


def _wire_form(function: Mapping[str, Any]) -> dict[str, Any]:
    return wire_tool(wire_name(function["name"]), function.get("description"), function.get("parameters"))


def _check_distinct(names: Sequence[str]) -> None:
    sent: dict[str, str] = {}
    for name in names:
        other = sent.get(wire_name(name))
        if other == name:
            raise LMStudioValueError(f"two of the tools have the name {name!r}; rename or remove one")
        if other is not None:
            raise LMStudioValueError(f"the tools {other!r} and {name!r} both become {wire_name(name)!r}; rename one")
        sent[wire_name(name)] = name
