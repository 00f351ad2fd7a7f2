"""Reads calls that could not be read: a bracket is missing, or the name of a tool only resembles one. Pure.

Nothing but brackets is completed: half of a string may be half of a path.
"""

import re

from lmstudio_integrations.client.predictions.call_repair.names import resembling_tools
from lmstudio_integrations.client.predictions.tool_parser.call_parser import MOST_CALLS, CallParser, ParsedCall
from lmstudio_integrations.client.predictions.tool_parser.formats import ENDS, FORMATS
from lmstudio_integrations.client.predictions.tool_parser.lenient_json import (
    MAX_DEPTH,
    CutOffError,
    NoCallError,
    TextCursor,
    read_whole_object,
)
from lmstudio_integrations.client.predictions.tool_parser.tools import OfferedTool, OfferedTools

_CLOSING = {"{": "}", "[": "]"}

_BEGINS = sorted({each for known in FORMATS for each in (*known.begins, *known.bodies)}, key=len, reverse=True)
_MARK = re.compile(f"(?P<begin>{'|'.join(map(re.escape, _BEGINS))})|(?P<end>{'|'.join(map(re.escape, ENDS))})")
_TRAILING = re.compile(rf"\s+|{'|'.join(map(re.escape, ENDS))}")

_NAMED = re.compile(
    r"""["'](?:name|tool|tool_name|function_name|function)["']\s*:\s*["']([^"'\s]+)["']|(?<![\w.-])([\w.-]+)\("""
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


def calls_in(text: str, tools: MeantTools, name: str | None) -> list[ParsedCall]:
    """Return the calls in a text that is nothing else; none if it cannot be read.

    Args:
        text: The text, with its markers.
        tools: The tools.
        name: The name of the tool if the text is only its arguments.
    """
    for candidate in (text, _balance(text)):
        try:
            return CallParser(TextCursor(candidate), tools, is_marked=True, is_final=True, is_in_block=False).calls()
        except (NoCallError, CutOffError):
            pass
    tool = None if name is None else tools.find(name)
    try:
        return [] if tool is None else [ParsedCall(tool, read_whole_object(_balance(text)))]
    except (NoCallError, CutOffError):
        return []


def split_calls(text: str, tools: MeantTools) -> list[ParsedCall | str]:
    """Return the calls in a text of which one cannot be read, and the text of each that cannot, in order.

    None are returned if a part that cannot be read may be several calls.
    """
    parts = list[ParsedCall | str]()
    for marked in _split_at_markers(text):
        parser = CallParser(TextCursor(marked), tools, is_marked=True, is_final=True, is_in_block=False)
        try:
            parts += parser.calls()
        except (NoCallError, CutOffError):
            rest = marked[parser.read_to :].lstrip(" \n,;")
            is_call = not parser.read or tools.name_in(rest) is not None
            parts += [*parser.read, rest] if is_call else parser.read
    are_several = any(isinstance(each, str) and _names_several(each, tools) for each in parts)
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


def _names_several(text: str, tools: MeantTools) -> bool:
    return sum(tools.find(json_name or name) is not None for json_name, name in _NAMED.findall(text)) > 1


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
