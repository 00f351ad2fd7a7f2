"""Whether a text ends with tool calls, or is nothing but tool calls.

A false call runs a tool, so doubt means text. Calls count if they end the text, if the tools are offered, and if the
arguments fit. Without a marker, or in a code block, they must be the whole response. What is quoted is not a call.
"""

import re
from typing import NamedTuple

from lmstudio_integrations.client.predictions.text_calls.bodies import CallReader, TextCall
from lmstudio_integrations.client.predictions.text_calls.formats import ENDS, MARKERS, OF_DEFINITIONS, format_at
from lmstudio_integrations.client.predictions.text_calls.tools import OfferedTools
from lmstudio_integrations.client.predictions.text_calls.values import CutOffError, NoCallError, Text

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

UNMARKED = "without markers"


class Reading(NamedTuple):
    """What was read.

    Attributes:
        text: The text of the calls.
        calls: The calls; none if they cannot be read.
        family: The models that write them like that.
        problem: Why they must not be made; `None` if they may.
        name: The tool of the first call about which that is.
    """

    text: str
    calls: tuple[TextCall, ...]
    family: str
    problem: str | None = None
    name: str | None = None


def is_quoted(text: str, at: int) -> bool:
    """Whether a marker is part of a code block, a quotation, a comment, a table or a list."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return (
        _is_in_code_block(text[: at - len(line)])
        or line.count("`") % 2 == 1
        or any(line.count(begin) > line.count(end) for begin, end in _BRACKETS)
        or _ITEM.match(line) is not None
        or line.endswith(_QUOTING)
        or (line.startswith(("    ", "\t")) and not line.strip() and bool(text[:at].strip()))
    )


def _is_in_code_block(text: str) -> bool:
    """Whether a text ends in a code block. A fence closes only one that is not longer, and of the same character."""
    fence = ""
    for line in text.splitlines():
        closing = _CLOSING_FENCE.fullmatch(line)
        if fence:
            if closing is not None and closing.group(1).startswith(fence):
                fence = ""
        else:
            fences = _FENCE.findall(line)
            fence = fences[-1] if len(fences) % 2 else ""
    return bool(fence)


class Candidate:
    """A text that may be calls, up to its end.

    Args:
        text: The text, from the first marker, or from the beginning of the response.
        tools: The tools that the request offers.
        is_marked: Whether it begins with a marker.
    """

    def __init__(self, text: str, tools: OfferedTools, *, is_marked: bool) -> None:
        self.text = text
        self._tools = tools
        self._is_marked = is_marked

    def is_possible(self) -> bool:
        """Whether it could be calls, or become calls as it grows."""
        try:
            self._calls(is_final=False)
        except CutOffError:
            return True
        except NoCallError:
            return False
        return True

    def read(self) -> Reading | None:
        """Return the calls, or what is wrong with them; `None` if it is something else."""
        text = self.text
        family = format_at(text) if self._is_marked else UNMARKED
        try:
            calls = self._calls(is_final=True)
        except CutOffError:
            is_begun = "{" in text or "(" in text or (self._is_marked and text[0] in "<[")
            return self._failed(family, "the call was cut off") if is_begun else None
        except NoCallError:
            return self.unreadable() if self._is_marked else None
        try:
            return self._checked(calls, family)
        except NoCallError:
            return None

    def _checked(self, calls: list[TextCall], family: str) -> Reading | None:
        """Return calls that fit; of marked ones that do not, what is wrong."""
        fitting = tuple([TextCall(tool, tool.fitting(arguments)) for tool, arguments in calls])
        for tool, arguments in fitting:
            problem = tool.problem(arguments, only_known=not self._is_marked)
            if problem is not None:
                return Reading(self.text, fitting, family, problem, tool.name) if self._is_marked else None
        return Reading(self.text, fitting, family)

    def unreadable(self) -> Reading | None:
        """Return what is wrong with a text that is not possible; `None` if it is something else than broken calls."""
        if self.text.startswith(OF_DEFINITIONS) or not self.text.rstrip().endswith(ENDS):
            return None
        return self._failed(format_at(self.text), "the call cannot be read")

    def _failed(self, family: str, problem: str) -> Reading | None:
        name = self._tools.name_in(self.text)
        return None if name is None else Reading(self.text, (), family, problem, name)

    def _calls(self, *, is_final: bool) -> list[TextCall]:
        text, is_marked = Text(self.text), self._is_marked
        if not is_marked:
            text.skip_space()
            is_marked = self._opens_code_block(text)
        is_in_block = not self._is_marked and self.text.lstrip().startswith("```")
        return CallReader(text, self._tools, is_marked=is_marked, is_final=is_final, is_in_block=is_in_block).calls()

    def _opens_code_block(self, text: Text) -> bool:
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
