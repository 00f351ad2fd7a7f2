"""Whether a text ends with tool calls, or is nothing but tool calls.

A false call runs a tool, so doubt means text. Calls count if they end the text, if the tools are offered, and if the
arguments fit. Without a marker, or in a code block, they must be the whole response. What is quoted, or part of a
sentence, is not a call.
"""

import re
from typing import NamedTuple

from lmstudio_integrations.client.predictions.tool_parser.call_parser import CallParser, ParsedCall
from lmstudio_integrations.client.predictions.tool_parser.formats import (
    BEGINNING_OF_REASONING,
    ENDS,
    MARKERS,
    OF_DEFINITIONS,
    format_at,
)
from lmstudio_integrations.client.predictions.tool_parser.lenient_json import CutOffError, NoCallError, TextCursor
from lmstudio_integrations.client.predictions.tool_parser.tools import OfferedTools

_FENCE = re.compile(r"(`{3,}|~{3,})[^\n`]*")
_CLOSING_FENCE = re.compile(r"[\s>]*(`{3,}|~{3,})\s*")
_LANGUAGE = re.compile(r"[\w-]*[ \t]*")
_CALL_LANGUAGES = frozenset(
    {"", "json", "xml", "tool_code", "tool_call", "tool_calls", "tool_use", "function_call", "function_calls"}
    | {"homeassistant"}  # of models that are trained for Home Assistant
)
"""The languages of code blocks that may be calls, rather than code."""

_QUOTING = tuple("`\"'“„‘‚«‹「『（(=\\")
_BRACKETS = (("(", ")"), ("[", "]"), ("（", "）"), ("「", "」"), ("«", "»"), ("„", "“"), ("“", "”"))
_ITEM = re.compile(r"\s*(?:>|#|\||//|--|<!--|<pre>|[-*+•–]\s|(?:\d+|[a-z])[.)]\s)")
"""What a line begins with that is part of a quotation, a comment, a table or a list."""

_BEFORE_CALLS = re.compile(r"(?:\n\s*|[^\W\d_]{2,}\.|[!?])(?:<[|｜]?[\w▁]+[|｜]>)*\Z")
"""What may precede a call in its line: nothing or the end of a sentence, and special tokens. Prose has a blank between
sentences, which this has not. A number or a single letter before a period is an ordinal or an abbreviation."""

_LONGEST_END = 64
"""The characters at the end of a line in which that is looked for."""

UNMARKED = "without markers"


class ParseResult(NamedTuple):
    """What was read.

    Attributes:
        text: The text of the calls.
        calls: The calls; none if they cannot be read.
        family: The models that write them like that.
        problem: Why they must not be made; `None` if they may.
        name: The tool of the first call about which that is.
    """

    text: str
    calls: tuple[ParsedCall, ...]
    family: str
    problem: str | None = None
    name: str | None = None


class Surroundings:
    """What precedes a place in a text that grows. Each character is read once, however often a model repeats a marker.

    Attributes:
        beginning: What the text begins with, as far as that may be the beginning of reasoning.
    """

    def __init__(self) -> None:
        self.beginning: str = ""
        self._fence = ""
        """The fence of the code block in which the line begins."""
        self._is_first_line = True
        """Whether nothing but white space precedes the line."""
        self._begin_line()

    def _begin_line(self) -> None:
        self._line: list[str] = []
        self._end = "\n"
        self._is_blank = True
        self._is_item: bool | None = None
        self._backticks = 0
        self._open_brackets = [0] * len(_BRACKETS)

    def advance(self, text: str) -> None:
        """Go on to the end of this text."""
        if len(self.beginning) < len(BEGINNING_OF_REASONING):
            self.beginning = (self.beginning + text).lstrip()[: len(BEGINNING_OF_REASONING)]
        lines, line_break, line = text.rpartition("\n")
        if line_break:
            self._is_first_line = self._is_first_line and self._is_blank and not lines.strip()
            self._fence = _fence_after("".join([*self._line, lines]), self._fence)
            self._begin_line()
        self._line.append(line)
        self._end = (self._end + line)[-_LONGEST_END:]
        self._is_blank = self._is_blank and not line.strip()
        self._backticks += line.count("`")
        for number, (begin, end) in enumerate(_BRACKETS):
            self._open_brackets[number] += line.count(begin) - line.count(end)

    @property
    def end_with_line(self) -> bool:
        """Whether the place is at the beginning of a line, perhaps after white space."""
        return self._is_blank

    @property
    def allow_marker(self) -> bool:
        """Whether a marker counts here. Within a line of prose, it is what the prose is about."""
        return not self.are_quoting and (self._is_blank or _BEFORE_CALLS.search(self._end) is not None)

    @property
    def are_quoting(self) -> bool:
        """Whether the place is in a code block, a quotation, a comment, a table or a list."""
        if self._is_item is None:  # whatever follows in the line
            self._is_item = _ITEM.match("".join(self._line)) is not None
        return (
            bool(self._fence)
            or self._backticks % 2 == 1
            or any(each > 0 for each in self._open_brackets)
            or self._is_item
            or self._end.endswith(_QUOTING)
            or (self._is_blank and not self._is_first_line and "".join(self._line).startswith(("    ", "\t")))
        )


def _fence_after(lines: str, fence: str) -> str:
    """Return the fence of the code block in which lines end. One closes only one that is not longer, and the same.

    Args:
        lines: The lines.
        fence: The fence of the code block in which they begin.
    """
    for line in lines.splitlines():
        closing = _CLOSING_FENCE.fullmatch(line)
        if fence:
            if closing is not None and closing.group(1).startswith(fence):
                fence = ""
        else:
            fences = _FENCE.findall(line)
            fence = fences[-1] if len(fences) % 2 else ""
    return fence


class ToolParser:
    """A text that may be calls, up to its end.

    Args:
        text: The text, from the first marker, or from the beginning of the response.
        tools: The tools that the request offers.
        is_marked: Whether it begins with a marker.
        reports_misfits: Whether calls that do not fit are reported without a marker, too.
    """

    def __init__(self, text: str, tools: OfferedTools, *, is_marked: bool, reports_misfits: bool = False) -> None:
        self.text = text
        self._tools = tools
        self._is_marked = is_marked
        self._reports_misfits = reports_misfits

    def is_possible(self) -> bool:
        """Whether it could be calls, or become calls as it grows."""
        try:
            self._calls(is_final=False)
        except CutOffError:
            return True
        except NoCallError:
            return False
        return True

    def parse(self) -> ParseResult | None:
        """Return the calls, or what is wrong with them; `None` if it is something else."""
        text = self.text
        family = format_at(text) if self._is_marked else UNMARKED
        try:
            calls = self._calls(is_final=True)
        except CutOffError:
            is_begun = "{" in text or "(" in text or (self._is_marked and text[0] in "<[")
            return self._failure(family, "the call was cut off") if is_begun else None
        except NoCallError:
            return self.unreadable() if self._is_marked else None
        try:
            return self._check(calls, family)
        except NoCallError:
            return None

    def _check(self, calls: list[ParsedCall], family: str) -> ParseResult | None:
        """Return calls that fit; of those that do not, what is wrong."""
        fitting = tuple([ParsedCall(tool, tool.fitting(arguments)) for tool, arguments in calls])
        for tool, arguments in fitting:
            problem = tool.problem(arguments, only_known=not self._is_marked)
            if problem is not None:
                # Arguments that only the schema does not name are a doubt, and nothing that could be mended.
                is_misfit = self._is_marked or (self._reports_misfits and tool.problem(arguments) is not None)
                return ParseResult(self.text, fitting, family, problem, tool.name) if is_misfit else None
        return ParseResult(self.text, fitting, family)

    def unreadable(self) -> ParseResult | None:
        """Return what is wrong with a text that is not possible; `None` if it is something else than broken calls."""
        if self.text.startswith(OF_DEFINITIONS) or not self.text.rstrip().endswith(ENDS):
            return None
        return self._failure(format_at(self.text), "the call cannot be read")

    def _failure(self, family: str, problem: str) -> ParseResult | None:
        name = self._tools.name_in(self.text)
        return None if name is None else ParseResult(self.text, (), family, problem, name)

    def _calls(self, *, is_final: bool) -> list[ParsedCall]:
        text, is_marked = TextCursor(self.text), self._is_marked
        if not is_marked:
            text.skip_space()
            is_marked = self._opens_code_block(text)
        is_in_block = not self._is_marked and self.text.lstrip().startswith("```")
        return CallParser(text, self._tools, is_marked=is_marked, is_final=is_final, is_in_block=is_in_block).calls()

    def _opens_code_block(self, text: TextCursor) -> bool:
        """Skip the beginning of a code block; return whether that, or what is in it, marks calls."""
        if not text.skip("```"):
            return False
        language = text.match(_LANGUAGE)
        text.at = language.end()
        if text.is_at_end:
            raise CutOffError
        if language.group().strip().lower() not in _CALL_LANGUAGES:
            raise NoCallError
        text.skip_space()
        return language.group() == "tool_code" or MARKERS.match(text.text, text.at) is not None
