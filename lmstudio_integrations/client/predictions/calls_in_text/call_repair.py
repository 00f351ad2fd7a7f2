"""Repairs tool calls by asking the model, and reads calls that could not be read. Pure.

The sentence about calls that do not fit, and the schema of the response; and calls in which a bracket is missing, or
the name of a tool only resembles one. `call_arguments.py` mends what needs no question.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lmstudio_integrations._support.text import shortened
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.client.predictions.calls_in_text.call_arguments import resembling_tools
from lmstudio_integrations.client.predictions.calls_in_text.call_parser import MOST_CALLS, CallParser, ParsedCall
from lmstudio_integrations.client.predictions.calls_in_text.formats import (
    ENDS,
    FORMATS,
    OfferedTool,
    OfferedTools,
    with_usual_tags,
)
from lmstudio_integrations.client.predictions.calls_in_text.lenient_json import (
    MAX_DEPTH,
    CutOffError,
    NoCallError,
    TextCursor,
    read_whole_object,
)
from lmstudio_integrations.types._call_schemas import call_schema

UNREADABLE = "the call cannot be read"
"""What is wrong with a call of which the arguments are not known."""

_LONGEST_FIXED = 200
"""Characters of an argument that the model has to write again; a longer one is put in afterwards."""


@dataclass(frozen=True, slots=True)
class WrongCall:
    """A call that does not fit, and that only the model can mend.

    Attributes:
        text: The call as the model wrote it.
        problem: What is wrong with it.
        tool: The tool that is called.
        arguments: The arguments, if they can be read.
    """

    text: str
    problem: str
    tool: OfferedTool
    arguments: dict[str, Any]

    @property
    def tools(self) -> Iterable[OfferedTool]:
        """The tools that it can be a call of."""
        return (self.tool,)

    def functions(self) -> list[dict[str, Any]]:
        """Return the tool that the call is made of, with the arguments that fit fixed."""
        tool, fixed = self.tool, self._fixed()
        long = {name for name, value in fixed.items() if len(json.dumps(value)) > _LONGEST_FIXED}
        # An argument that does not fit is written again, and not left out.
        usable = (name for name in self.arguments if name in fixed or name in tool.parameters)
        required = [*tool.schema.get("required", ()), *usable]
        # What the model did not write, it does not need, unless it wrote it under another name.
        is_all_known = self._is_all_known(fixed)
        more = {name: None for name in fixed if name not in tool.parameters}
        properties = {
            name: {"const": fixed[name]} if name in fixed else schema
            for name, schema in {**tool.parameters, **more}.items()
            if name not in long and (name in required or name in self.arguments or not is_all_known)
        }
        required = [name for name in dict.fromkeys(required) if name not in long]
        parameters = {"additionalProperties": False, **tool.schema, "properties": properties, "required": required}
        return [{"name": tool.name, "parameters": parameters}]

    def _is_all_known(self, fixed: Mapping[str, Any]) -> bool:
        return bool(fixed) and self.arguments.keys() <= self.tool.parameters.keys() | fixed.keys()

    def _fixed(self) -> dict[str, Any]:
        """Return the arguments that fit."""
        tool = self.tool
        misfits = {each.path[0] for each in tool.misfits(self.arguments) if each.path}
        allows_more = bool(tool.schema.get("additionalProperties") or tool.schema.get("patternProperties"))
        known = self.arguments if allows_more else tool.parameters
        return {name: each for name, each in self.arguments.items() if name in known and name not in misfits}

    def mended_by(self, call: object) -> ParsedCall | None:
        """Return the call that a response makes of this one: what fitted stays; `None` if it does not fit either."""
        tool = self.tool
        written = call.get("arguments") if is_object(call) and call.get("name") == tool.name else None
        if not is_object(written):
            return None
        fixed = self._fixed()
        added = written.keys() - self.arguments.keys() - {*tool.schema.get("required", ())}
        if added and self._is_all_known(fixed):  # a server that ignores the grammar
            return None
        names = [name for name in (*self.arguments, *written) if name in fixed or name in written]
        arguments = {name: fixed.get(name, written.get(name)) for name in names}
        return ParsedCall(tool, arguments) if tool.problem(arguments) is None else None


_ANSWER: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class LostCall:
    """A call that the engine has not passed on, because it could not read it.

    Engines report some responses without a call in the same words, so the model may also answer.

    Attributes:
        problem: What the engine says.
        tools: The tools that are offered.
        may_answer: Whether the request allows a response without a call.
        text: What is known of the call.
    """

    problem: str
    tools: OfferedTools
    may_answer: bool
    text: str = ""

    def functions(self) -> list[dict[str, Any]]:
        """Return all tools that are offered."""
        return [{"name": tool.name, "parameters": tool.schema} for tool in self.tools]

    def mended_by(self, call: object) -> ParsedCall | str | None:
        """Return the call that a response makes of this one, or what it answers; `None` if it does not fit either."""
        if not is_object(call):
            return None
        if self.may_answer and isinstance(answer := call.get("answer"), str):
            return answer
        name, arguments = call.get("name"), call.get("arguments")
        tool = self.tools.find(name) if isinstance(name, str) else None
        if tool is None or not is_object(arguments) or tool.problem(arguments) is not None:
            return None
        return ParsedCall(tool, arguments)


def sentence(wrong: Sequence[WrongCall | LostCall], *, with_tools: bool) -> str:
    """Return the message that asks the model to write the calls again.

    Args:
        wrong: The calls.
        with_tools: Whether it has the definitions of their tools, because the prompt does not have them.
    """
    problems = "\n".join(
        dict.fromkeys(f"{shortened(each.text) or 'your response'}: {shortened(each.problem)}" for each in wrong)
    )
    tools = {tool.name: tool.schema for each in wrong for tool in each.tools} if with_tools else {}
    definitions = "".join(
        f"\nThe tool {name}: {json.dumps(schema, ensure_ascii=False)}" for name, schema in tools.items()
    )
    if len(wrong) == 1:
        form = 'the correct call as JSON: {"name": …, "arguments": …}'
    else:
        form = 'the correct calls as JSON: [{"name": …, "arguments": …}, …]'
    if any(_may_answer(each) for each in wrong):
        form += ', or, to answer without a call, {"answer": …}'
    return f"This does not fit:\n{problems}{definitions}\nRespond only with {form}"


def _may_answer(call: WrongCall | LostCall) -> bool:
    return isinstance(call, LostCall) and call.may_answer


def response_schema(wrong: Sequence[WrongCall | LostCall]) -> dict[str, Any]:
    """Return the schema of the response: one call, or a list of several."""
    schema = call_schema([function for each in wrong for function in each.functions()])
    definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
    if any(_may_answer(each) for each in wrong):
        schema = {"anyOf": [*schema.get("anyOf", [schema]), _ANSWER]}
    if len(wrong) > 1:
        schema = {"type": "array", "items": schema, "minItems": len(wrong), "maxItems": len(wrong)}
    return {**schema, **definitions}


def calls_of(response: str, wrong: Sequence[WrongCall]) -> list[ParsedCall | None]:
    """Return the call for each wrong one; `None` where none mends it."""
    return [each.mended_by(call) for each, call in zip(wrong, written_in(response, len(wrong)), strict=True)]


def written_in(response: str, number: int) -> list[Any]:
    """Return what a response has in the place of each of a number of calls; `None` if it has not as many."""
    try:
        read: Any = json.loads(response)
    except ValueError:
        read = None
    calls = [read] if number == 1 else read
    return calls if is_list(calls) and len(calls) == number else [None] * number


_CLOSING = {"{": "}", "[": "]"}

_BEGINS = sorted({each for known in FORMATS for each in (*known.begins, *known.bodies)}, key=len, reverse=True)
_MARK = re.compile(f"(?P<begin>{'|'.join(map(re.escape, _BEGINS))})|(?P<end>{'|'.join(map(re.escape, ENDS))})")
_TRAILING = re.compile(rf"\s+|{'|'.join(map(re.escape, ENDS))}")

_NAMED = re.compile(
    r"""["'](?:name|tool|tool_name|function_name|function)["']\s*:\s*["']([^"'\s]+)["']|(?<![\w.-])([\w.-]+)\("""
    rf"|(?:{'|'.join(map(re.escape, _BEGINS))})([\w.-]+)"
)
"""The name of a tool in a call."""


class MeantTools(OfferedTools):
    """The tools of a request by name, also by one that resembles that of exactly one."""

    def find(self, name: str) -> OfferedTool | None:
        """Return the tool that a model means by a name, under the name as the model wrote it."""
        meant = self.meant(name)
        return meant if meant is None or meant.name == name else meant.with_name(name)

    def meant(self, name: str) -> OfferedTool | None:
        """Return the tool that a model means by a name."""
        tool = super().find(name)
        names = [] if tool is not None else resembling_tools(name, [tool.name for tool in self])
        return super().find(names[0]) if len(names) == 1 else tool


def _parser(text: str, tools: OfferedTools) -> CallParser:
    cursor = TextCursor(with_usual_tags(text, is_final=True))
    return CallParser(cursor, tools, is_marked=True, is_final=True, is_in_block=False)


def calls_in(text: str, tools: MeantTools, name: str | None) -> list[ParsedCall]:
    """Return the calls in a text that is nothing else; none if it cannot be read.

    Args:
        text: The text, with its markers.
        tools: The tools.
        name: The name of the tool if the text is only its arguments.
    """
    for candidate in (text, _balance(text)):
        try:
            return _parser(candidate, tools).calls()
        except (NoCallError, CutOffError):
            pass
    tool = None if name is None else tools.find(name)
    try:
        return [] if tool is None else [ParsedCall(tool, read_whole_object(_balance(text)))]
    except (NoCallError, CutOffError):
        return []


def name_in(text: str, tools: OfferedTools) -> str | None:
    """Return the tool of the first call in a text, if it has a complete name where calls have it."""
    parser = _parser(text, tools)
    with suppress(NoCallError, CutOffError):
        parser.calls()
    return None if parser.begun is None else parser.begun.name


def split_calls(text: str, tools: OfferedTools) -> list[ParsedCall | str]:
    """Return the calls in a text of which one cannot be read, and the text of each that cannot, in order.

    None are returned if a part that cannot be read may be several calls.
    """
    parts = list[ParsedCall | str]()
    for marked in _split_at_markers(text):
        parser = _parser(marked, tools)
        try:
            parts += parser.calls()
        except (NoCallError, CutOffError):
            rest = parser.rest.lstrip(" \n,;}])")
            is_call = not parser.read or name_in(rest, tools) is not None
            parts += [*parser.read, rest] if is_call else parser.read
    are_several = any(isinstance(each, str) and len(named_in(each, tools)) > 1 for each in parts)
    return [] if are_several or len(parts) > MOST_CALLS else parts


def _split_at_markers(text: str) -> list[str]:
    """Return the parts of a text that each begin and end with markers; all of it if a part has others within.

    A call of which an argument has markers could be taken for several.
    """
    parts, begin, end, is_head, is_closed = list[str](), 0, 0, True, False
    for mark in _MARK.finditer(text):
        is_adjacent = not text[end : mark.start()].strip()
        if mark.lastgroup == "end":
            is_head, is_closed = False, True
        elif is_adjacent and is_closed:
            parts.append(text[begin : mark.start()])
            begin, is_head, is_closed = mark.start(), True, False
        elif not (is_adjacent and is_head):
            return [text]
        end = mark.end()
    return [each for each in (*parts, text[begin:]) if _MARK.sub("", each).strip()]


def named_in(text: str, tools: OfferedTools) -> list[OfferedTool]:
    """Return the tools that a text names where calls have a name, in order."""
    found = (tools.find("".join(names)) for names in _NAMED.findall(text))
    return [tool for tool in found if tool is not None]


def _balance(text: str) -> str:
    """Return a text with the closing brackets that are missing, and without those that are too many."""
    begin = end = 0
    for match in _TRAILING.finditer(text):
        begin, end = (begin if match.start() == end else match.start()), match.end()
    length = begin if end == len(text) else len(text)
    body, written, open_brackets = text[:length], list[str](), list[str]()
    is_in_string = is_escaped = False
    for character in body:
        if is_in_string:
            is_in_string = is_escaped or character != '"'
            is_escaped = character == "\\" and not is_escaped
        elif character == '"':
            is_in_string = True
        elif character in _CLOSING:
            open_brackets.append(_CLOSING[character])
            if len(open_brackets) > MAX_DEPTH:
                return text
        elif character in _CLOSING.values():
            if character not in open_brackets:
                continue
            while open_brackets[-1] != character:
                written.append(open_brackets.pop())
            open_brackets.pop()
        written.append(character)
    # After these, the model meant to go on, and what it lacks is not known.
    is_begun = body.endswith(("{", "[", ",", ":", "."))
    closing = "" if is_in_string or is_begun else "".join(reversed(open_brackets))
    return "".join([*written, closing, text[length:]])
