"""Reads calls that could not be read: a bracket is missing, or the name of a tool only resembles one. Pure.

Nothing but brackets is completed: half of a string may be half of a path.
"""

from lmstudio_integrations.client.predictions.call_repair.names import resembling_tools
from lmstudio_integrations.client.predictions.tool_parser.call_parser import CallParser, ParsedCall
from lmstudio_integrations.client.predictions.tool_parser.formats import ENDS
from lmstudio_integrations.client.predictions.tool_parser.lenient_json import (
    CutOffError,
    NoCallError,
    TextCursor,
    read_whole_object,
)
from lmstudio_integrations.client.predictions.tool_parser.tools import OfferedTool, OfferedTools

_CLOSING = {"{": "}", "[": "]"}


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


def _balance(text: str) -> str:
    """Return a text with the closing brackets that are missing, and without those that are too many."""
    body = text.rstrip()
    while end := next((each for each in ENDS if body.endswith(each)), ""):
        body = body.removesuffix(end).rstrip()
    written, open_brackets = list[str](), list[str]()
    is_in_string = is_escaped = False
    for character in body:
        if is_in_string:
            is_in_string = is_escaped or character != '"'
            is_escaped = character == "\\" and not is_escaped
        elif character == '"':
            is_in_string = True
        elif character in _CLOSING:
            open_brackets.append(_CLOSING[character])
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
    return "".join([*written, closing, text[len(body) :]])
