"""Whether a text ends with tool calls, or is nothing but tool calls; and where they may begin in a text that grows.

A false call runs a tool, so doubt means text. Calls count if they end the text, if the tools are offered, and if the
arguments fit. Without a marker, or in a code block, they must be the whole response. What is quoted, or part of a
sentence, is not a call. A stream holds back only what may be markup.
"""

import re
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

from lmstudio_integrations.client.predictions.calls_in_text.call_parser import NAMES, CallParser, ParsedCall
from lmstudio_integrations.client.predictions.calls_in_text.formats import (
    BEFORE_ARGUMENTS,
    BETWEEN,
    COMMON,
    ENDS,
    ENDS_OF_TURN,
    INVENTED_RESULT,
    MARKERS,
    MINIMAX_SEPARATOR,
    NEXT_TURNS,
    OF_DEFINITIONS,
    REASONING,
    TOOL_CODE,
    OfferedTool,
    OfferedTools,
    format_at,
    with_usual_tags,
)
from lmstudio_integrations.client.predictions.calls_in_text.lenient_json import (
    CutOffError,
    NoCallError,
    TextCursor,
    read_whole_object,
)

_FENCE = re.compile(r"(`{3,}|~{3,})[^\n`]*")
_CLOSING_FENCE = re.compile(r"[\s>]*(`{3,}|~{3,})\s*")
_LANGUAGE = re.compile(r"[\w-]*[ \t]*")
_CALL_LANGUAGES = frozenset(
    {"", "json", "tool_call"} | {"homeassistant"}  # of models that are trained for Home Assistant
)
"""The languages of code blocks that may be calls, rather than code."""

_SEPARATORS = " \t\r\n▁;,"
"""What may precede the first call: Llama begins a further turn with a semicolon."""

_CLOSING = ("}", "]", ")", '"')
"""What a complete call ends with in front of its marker, or of the end of the text."""

_NAMELESS = re.compile(r"(?:functions\.)?(?:(?:tool_)?call)?[_:-]?\d*\s*(\{.*\})?", re.DOTALL)
"""What stands between markers where the name of a tool is missing."""

_INDENTS = ("    ", "\t")
"""What makes code of a line in Markdown."""

_QUOTING = tuple("`\"'“„‘‚«‹「『（(=\\")
_BRACKETS = (("(", ")"), ("[", "]"), ("（", "）"), ("「", "」"), ("«", "»"), ("„", "“"), ("“", "”"))
_ITEM = re.compile(r"\s*(?:>|#|\||//|--|<!--|<pre>|[-*+•–]\s|(?:\d+|[a-z])[.)]\s|\d+[.)](?!\d))")
"""What a line begins with that is part of a quotation, a comment, a table or a list."""

_SPECIAL = rf"(?:<[|｜]?[\w▁]+[|｜]>|{re.escape(MINIMAX_SEPARATOR)})"
_THOUGHT = f"(?:{'|'.join(map(re.escape, chain(REASONING, REASONING.values())))})"
_BEFORE_CALLS = re.compile(
    rf"(?:\n[\s;,]*|[^\W\d_]{{2,}}\.|\d\.?|[])}}]\.?|[!?…。！？]|{_SPECIAL}|{_THOUGHT}\s*){_SPECIAL}*\Z"
)
"""What may precede a call in its line: nothing but separators, the end of a sentence, a number or a bracket, special
tokens, or a tag of thoughts. Prose has a blank between sentences, which this has not. A single letter before a period
is an abbreviation."""

_IN_PROSE = re.compile(rf"\S[ \t](?:{_SPECIAL}|{_THOUGHT})")
"""What prose has of special tokens: they stand between blanks, like words."""

_REST_OF_TAG = r"\**(?:[\w.\"'-]{1,60}>)?(?:(?:\.\.\.|…)?</[^\s<>]{1,40}>)?"
_QUOTED_MENTION = re.compile(rf"(?:{_REST_OF_TAG}|[^\s<>{{}}()]{{1,60}})[`\"'“”’»」』)）\]]")
_WORDS = r"[ \t]+\(?[^\W\d_][\w'’-]*(?:[ \t]+[`\"'“„(]?[^\W\d_]|[,.;!?)]\s)"
_MENTION = re.compile(rf"{_REST_OF_TAG}(?:{_WORDS}|[,.;:!?)]+\s|[。，、；])|CDATA\[")
"""What follows a marker that a text only mentions: the end of the quotation, or the words of a sentence."""

_SHOWN = re.compile(r"(?:[\w.\"'-]{1,60}>)?[\s\[]*\{\s*[^\s}]|[\w.\"'-]{1,60}>\s*[<\]]")
"""What follows a marker with which a text shows a call: a body in braces, or the tags of arguments."""

_TAG = re.compile(r"<[^<>\n]{1,80}>|&\w{1,10};")
_ANNOUNCEMENT = re.compile(r"[:：﹕︰∶][\W_]*\Z")
_ENDS_OF_SENTENCES = ".!?…。！？"
_HEADING = re.compile(r"\n[^\n]+(?<![^\W\d_][.!?…])(?<![。！？])(?:\n[=-]+)?\s*\Z")
"""A line that is no sentence, and perhaps what underlines it."""

_OPENED = re.compile(r"\n[ \t]*(?:<[a-zA-Z][^<>\n]*>|:::[^\n]*)\s*\Z")
"""What the line before a call is that a text shows: a tag of HTML, or the beginning of a box in Markdown."""

_WHITE_SPACE = re.compile(r"\s+")

_ENCLOSING = (("<!--", "-->"), ("(", ")"), ("（", "）"))
_TRIPLE_QUOTES = ('"""', "'''")

_OWN_TURN = re.compile(r"(?:\s|<\|(?:im_)?start\|>assistant(?: to=[\w.-]+)?|<\|message\|>)*")
"""What a model writes that goes on after it has ended its turn."""

_LONGEST_BEGINNING = max(map(len, REASONING.values()))

_ANSWER = "to=user<|message|>"
"""What Muse begins a message to the user with, in which it shows calls and makes none."""

_LONGEST_END = 128
"""The characters at the end of a line, or of a text, in which that is looked for."""

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

    @property
    def is_nameless(self) -> bool:
        """Whether it is a call that names no tool."""
        return self.name is None and self.problem is not None


class Surroundings:
    """What precedes a place in a text that grows. Each character is read once, however often a model repeats a marker.

    Attributes:
        beginning: What the text begins with, as far as that may be the beginning of reasoning.
    """

    def __init__(self) -> None:
        self.beginning: str = ""
        self._fence = ""
        """The fence of the code block in which the line begins."""
        self._last = "\n"
        """The last characters, with one for white space."""
        self._open = [0] * len(_ENCLOSING)
        self._triple_quotes = [0] * len(_TRIPLE_QUOTES)
        self._begin_line()

    def _begin_line(self) -> None:
        self._line: list[str] = []
        self._end = "\n"
        self._is_blank = True
        self._is_item: bool | None = None
        self._is_about_tokens = False
        self._backticks = 0
        self._open_brackets = [0] * len(_BRACKETS)

    def advance(self, text: str) -> None:
        """Go on to the end of this text."""
        if len(self.beginning) < _LONGEST_BEGINNING:
            self.beginning = (self.beginning + text).lstrip()[:_LONGEST_BEGINNING]
        self._last = _WHITE_SPACE.sub(_line_break_or_blank, self._last + text)[-_LONGEST_END:]
        for number, (begin, end) in enumerate(_ENCLOSING):
            self._open[number] += text.count(begin) - text.count(end)
        for number, quotes in enumerate(_TRIPLE_QUOTES):
            self._triple_quotes[number] += text.count(quotes)
        lines, line_break, line = text.rpartition("\n")
        if line_break:
            self._fence = _fence_after("".join([*self._line, lines]), self._fence)
            self._begin_line()
        self._is_about_tokens = self._is_about_tokens or _IN_PROSE.search(self._end[-2:] + line) is not None
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
    def end_with_sentence(self) -> bool:
        """Whether what precedes the place is a whole sentence, or nothing."""
        return self._last.rstrip(_SEPARATORS)[-1:] in {"", *_ENDS_OF_SENTENCES}

    @property
    def allow_marker(self) -> bool:
        """Whether a marker counts here. Within a line of prose, it is what the prose is about."""
        is_place = self._is_blank or _BEFORE_CALLS.search(self._end) is not None
        return is_place and not (self.are_quoting or self._are_answering)

    @property
    def _are_answering(self) -> bool:
        return self.beginning.startswith(_ANSWER) and not self._end.endswith(_ANSWER)

    @property
    def are_quoting(self) -> bool:
        """Whether the place is in a code block, a quotation, a comment, a table, a list, or a line about tokens."""
        if self._is_item is None:  # whatever follows in the line
            self._is_item = _ITEM.match("".join(self._line)) is not None
        return self._is_about_tokens or self._is_item or self.are_in_quotation

    @property
    def end_with_thought(self) -> bool:
        """Whether the tag that follows ends thoughts that have begun: it is no word of theirs, between blanks."""
        return not (self.are_in_quotation or (self._is_about_tokens and self._end[-1] in " \t"))

    @property
    def may_show_a_call(self) -> bool:
        """Whether what follows may be an example: it is announced or enclosed, or its line is indented."""
        before = _TAG.sub("", self._last)
        return (
            _ANNOUNCEMENT.search(before) is not None
            or _ANNOUNCEMENT.search(_HEADING.sub("", before)) is not None
            or _OPENED.search(self._last) is not None
            or any(each > 0 for each in self._open)
            or any(each % 2 for each in self._triple_quotes)
            or "".join(self._line)[:1].isspace()
        )

    def are_mentioning(self, following: str, at: int) -> bool:
        """Whether a marker is only mentioned here that this text begins with, up to this place in it."""
        is_quoted = self.are_in_quotation and _QUOTED_MENTION.match(following, at) is not None
        return bool(self._fence) or is_quoted or _MENTION.match(following, at) is not None

    @property
    def are_in_quotation(self) -> bool:
        """Whether the place is in code, in brackets, or behind a quotation mark."""
        return (
            bool(self._fence)
            or self._backticks % 2 == 1
            or any(each > 0 for each in self._open_brackets)
            or self._end.endswith(_QUOTING)
            or (self._is_blank and "".join(self._line).startswith(_INDENTS))
        )


def _line_break_or_blank(white_space: "re.Match[str]") -> str:
    return "\n" if "\n" in white_space.group() else " "


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
        reports_misfits: Whether a call that does not fit is reported without a marker, too. In a code block, it is an
            example.
        is_strict: Whether calls that do not fit, or are not all of the text, are something else.
        cuts_results: Whether calls count behind which the model has invented a result.
    """

    def __init__(
        self,
        text: str,
        tools: OfferedTools,
        *,
        is_marked: bool,
        reports_misfits: bool = False,
        is_strict: bool = False,
        cuts_results: bool = False,
    ) -> None:
        self.text = text
        self._tools = tools
        self._is_marked = is_marked
        self._cuts_results = cuts_results
        self._is_strict = is_strict
        self._is_in_block = not is_marked and text.lstrip().startswith("```")
        self._reports_misfits = reports_misfits and not self._is_in_block
        self._begun: OfferedTool | None = None
        """The tool of the first call of the text that was read last, as far as its name is complete."""
        self._rest = ""
        """What follows on the calls that could be read."""

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
            is_begun = self._is_marked or "{" in text or "(" in text
            return self._failure(family, "the call was cut off") if is_begun and not self._is_in_block else None
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
                is_reported = is_misfit and not self._is_strict
                return ParseResult(self.text, fitting, family, problem, tool.name) if is_reported else None
        return ParseResult(self.text, fitting, family)

    def begins_call(self) -> bool:
        """Whether the text begins with a call, at least with the name of its tool."""
        with suppress(CutOffError, NoCallError):
            self._calls(is_final=True)
        return self._begun is not None

    def unreadable(self) -> ParseResult | None:
        """Return what is wrong with a text that is not possible; `None` if it is something else than broken calls."""
        written = self.text.rstrip()
        if written.startswith(TOOL_CODE):
            written = written.removesuffix("```").rstrip()
        if written.startswith(OF_DEFINITIONS) or not written.endswith((*ENDS, *_CLOSING)):
            return None
        with suppress(CutOffError, NoCallError):
            self._calls(is_final=True)
        # Behind a call that was read, only a marker tells that the rest is another one, and not the rest of the text.
        rest = BETWEEN.removed_from(self._rest).lstrip(_SEPARATORS)
        if rest and not (rest[0] in "{[<" or self._tools.begins(rest) or written.endswith(ENDS)):
            return None
        return self._failure(format_at(self.text), "the call cannot be read")

    def _failure(self, family: str, problem: str) -> ParseResult | None:
        if self._is_strict:
            return None
        if self._begun is not None:
            return ParseResult(self.text, (), family, problem, self._begun.name)
        return ParseResult(self.text, (), family, "the call has no name") if is_nameless(self.text) else None

    def _calls(self, *, is_final: bool) -> list[ParsedCall]:
        text, is_marked = TextCursor(with_usual_tags(self.text, is_final=is_final)), self._is_marked
        if not is_marked:
            text.at = len(text.text) - len(text.text.lstrip(_SEPARATORS))
            is_marked = self._opens_code_block(text)
        parser = CallParser(
            text,
            self._tools,
            is_marked=is_marked,
            is_final=is_final,
            is_in_block=self._is_in_block,
            is_strict=self._is_strict,
            cuts_results=self._cuts_results,
        )
        try:
            return parser.calls()
        finally:
            self._begun = parser.begun
            self._rest = parser.rest if parser.read else ""

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
        return MARKERS.match(text.text, text.at) is not None


def is_nameless(text: str) -> bool:
    """Whether a text is a call, from its marker to its end, that lacks the name of a tool and perhaps the rest."""
    if not (text.rstrip().endswith(ENDS) and MARKERS.match(text, 0)):
        return False
    inner = _NAMELESS.fullmatch(BEFORE_ARGUMENTS.removed_from(BETWEEN.removed_from(text)).strip())
    if inner is None:
        return False
    with suppress(CutOffError, NoCallError):
        call = read_whole_object(inner[1] or "{}")
        return not any(isinstance(call.get(name), str) and call[name].strip() for name in NAMES)
    return False


MOST_HELD = 1 << 18
"""Characters that may be held back; longer calls stay text."""

_LONGEST_STEP = 1 << 9
"""Characters that are looked at together, so that a text of many tags takes linear time."""

_FEWEST_NEW = 16
"""How many characters of a candidate must be new before it is read again; a quarter of a long one."""


class StreamingToolParser:
    """Watches one text: a response, or reasoning.

    The first marker in it decides that it does not only mention: behind a call that it shows, or that cannot be read,
    no other counts. Behind a mention, calls count that nothing announces or encloses, and nothing mends: a text about
    calls may show some. What precedes the end of reasoning in the text of a response does not count.

    Args:
        tools: The tools that the request offers.
        marked_only: Whether calls without a marker do not count.
        repairs: Whether calls are mended that do not fit: then what follows a marker and cannot be read is held back up
            to the end, because a call that fits may follow, and one without a marker is reported.
    """

    def __init__(self, tools: OfferedTools, *, marked_only: bool, repairs: bool = False) -> None:
        self._tools = tools
        self._repairs = repairs
        self._held_length = 0
        self._has_reasoned = False
        """Whether reasoning in the text has ended."""
        self._begin(0, "", marked_only=marked_only)

    def _begin(self, at: int, text: str, *, marked_only: bool) -> None:
        self._begun_at = at
        self._parts: list[str] = [text]
        self._length = len(text)
        self._surroundings = Surroundings()
        """What precedes the last marker that was looked at."""
        self._since: list[str] = [text]
        """What follows on that."""
        self._since_at = 0
        self._tail = "\n"
        """What is to be looked at again with what follows, after the character before it."""
        self._is_first = not marked_only
        """Whether there was nothing but white space."""
        self._is_over = False
        """Whether no marker counts any more."""
        self._turn_end: int | None = None
        """Where the turn ended, if that ended it: calls may follow there."""
        self._candidate: int | None = None
        """Where the calls may begin."""
        self._marker = ""
        """What it begins with, if it is marked."""
        self._may_be_shown = False
        """Whether something announces it or encloses it."""
        self._given_up: int | None = None
        """Where the first marker is, if what follows on it cannot be read."""
        self._last_place: int | None = None
        """Where the last calls may begin, whether they count or not: at a marker, or at the beginning of the text."""
        self._undecided = 0
        """The length of the last marker, if what follows on it tells whether it is a mention."""
        self._has_mentions = False
        """Whether a marker was only mentioned."""
        self._next_look = 0

    def add(self, content: str) -> int:
        """Add to the text; return how many of its last characters may be part of calls."""
        for at in range(0, len(content), _LONGEST_STEP):
            self._held_length = self._add(content[at : at + _LONGEST_STEP])
            if self._repairs and self._given_up is not None:
                since = self._length - self._given_up
                self._held_length = since if since <= MOST_HELD else self._held_length
        return self._held_length

    def _add(self, content: str) -> int:
        self._parts.append(content)
        self._since.append(content)
        self._length += len(content)
        if self._candidate is None:
            return self._search(self._tail + content)
        if self._length < self._next_look:
            return self._length - self._candidate
        return self._look(self._candidate)

    def finish(self) -> tuple[int, ParseResult] | None:
        """Return what was read at the end of the text, and where it begins; `None` if there is no call."""
        while self._candidate is not None:
            parser = self._parser_at(self._candidate, is_marked=bool(self._marker))
            if self._is_possible(parser):
                return self._result_at(self._candidate, parser.parse())
            self._give_up(parser)
        if self._given_up is None:
            return None
        return self._result_at(self._given_up, self._parser_at(self._given_up).unreadable())

    def shown(self) -> ParseResult | None:
        """Return the calls at the end of a text that are not read because they may be an example."""
        if self._last_place is None or self._length - self._last_place > MOST_HELD:
            return None
        text, invented, _ = self._parser_at(self._last_place).text.partition(INVENTED_RESULT)
        result = ToolParser(text, self._tools, is_marked=self._last_place > 0).parse()
        is_complete = result is not None and result.problem is None
        is_call = is_complete or (result is not None and self._candidate is not None and not invented)
        return result if is_call else None

    def _result_at(self, at: int, result: ParseResult | None) -> tuple[int, ParseResult] | None:
        if result is None or (result.is_nameless and "".join(self._parts)[:at].strip()):  # the text is the response
            return None
        return self._begun_at + at, result

    def _search(self, window: str, at: int = 1) -> int:
        """Look for the first marker from a place in a text on; return how many characters are held."""
        while (length := self._search_in(window, at)) is None:
            window, at = "\n" + self._parts[0], 1
        return length

    def _search_in(self, window: str, at: int) -> int | None:
        """Do the same up to the end of reasoning, if that is in the text; then return `None`."""
        if self._is_first:
            first = window.lstrip(_SEPARATORS)
            marker = MARKERS.match(window, len(window) - len(first))
            name = first.removeprefix("<")
            is_part = marker is not None and not MARKERS.is_whole(marker)
            if not first or is_part or (self._tools.may_begin(name) and not self._tools.begins(name)):
                self._tail = window[-len(first) - 1 :]
                return self._length
            self._is_first = False
            indent = "".join(self._parts)[: self._length - len(first)].rpartition("\n")[2]
            is_body = first[0] in "{[`" or self._tools.begins(name)
            if marker is None and is_body and not indent.startswith(_INDENTS):
                return self._begin_candidate(0, "")
            self._last_place = 0 if marker is None and is_body else None
        while (match := MARKERS.find(window, at)) is not None:
            begin, at = self._length - len(window) + match.start(), match.end()
            if not MARKERS.is_whole(match):
                self._tail = window[match.start() - 1 :]
                return 0 if self._is_over and not self._follows_turn(begin) else len(window) - match.start()
            token = match.group()
            if token in REASONING:
                if self._ends_reasoning(begin, token, window[at:]):
                    return None
            elif self._counts(begin, token, window[match.start() - 1]):
                return self._begin_candidate(begin, token)
        self._tail = window[-1]
        return 0

    def _counts(self, at: int, token: str, before: str) -> bool:
        """Whether a marker counts, before which this character is. If not, what follows on it may decide."""
        surroundings = self._surroundings_of(at)
        begins_calls = token not in NEXT_TURNS
        counts = begins_calls and (self._follows_turn(at) if self._is_over else surroundings.allow_marker)
        if begins_calls and (surroundings.allow_marker or surroundings.end_with_line):
            self._last_place = at
        self._may_be_shown = counts and (
            surroundings.may_show_a_call or (token == TOOL_CODE and not surroundings.end_with_sentence)
        )
        if counts and not (self._may_be_shown and (self._has_mentions or token == TOOL_CODE)):
            return True
        if token in COMMON or self._is_over:
            return False
        is_word = token in ENDS_OF_TURN and before in " \t"
        if token in ENDS_OF_TURN and not is_word:
            self._turn_end = at + len(token)
        self._is_over = counts or (token in NEXT_TURNS and not (is_word or surroundings.are_in_quotation))
        self._undecided = 0 if self._is_over else len(token)
        return False

    def _follows_turn(self, at: int) -> bool:
        """Whether nothing stands between the end of the turn and a place in the text, or the same turn goes on."""
        if self._turn_end is None or at - self._turn_end > _LONGEST_END:
            return False
        self._parts = ["".join(self._parts)]
        return _OWN_TURN.fullmatch(self._parts[0][self._turn_end : at]) is not None

    def _ends_reasoning(self, at: int, tag: str, rest: str) -> bool:
        """Whether a tag ends the reasoning; if so, begin anew with the rest of the text."""
        if self._has_reasoned:
            return False
        before = self._surroundings_of(at)
        is_begun = before.beginning.startswith(REASONING[tag])
        if not (before.allow_marker or (is_begun and before.end_with_thought)):
            return False
        self._has_reasoned = True
        is_tagged = is_begun or before.end_with_line
        self._begin(self._begun_at + self._length - len(rest), rest, marked_only=not is_tagged)
        return True

    def _surroundings_of(self, at: int) -> Surroundings:
        """Return what precedes a marker, after the last one that was looked at."""
        since, length = "".join(self._since), at - self._since_at
        if self._undecided and self._is_mention(since[:length], self._undecided):
            self._has_mentions, self._given_up, self._turn_end = True, None, None
        elif self._undecided:
            self._is_over = True
        self._undecided = 0
        self._surroundings.advance(since[:length])
        self._since, self._since_at = [since[length:]], at
        return self._surroundings

    def _is_mention(self, text: str, at: int) -> bool:
        """Whether a text, up to the next marker, only mentions the marker that it begins with and that ends here."""
        if not self._surroundings.are_mentioning(text, at) or _SHOWN.match(text, at) is not None:
            return False
        has_name = text[at - 1] == "="  # in the marker
        return has_name or not ToolParser(text, self._tools, is_marked=True).begins_call()

    def _begin_candidate(self, at: int, marker: str) -> int:
        self._candidate, self._marker = at, marker
        return self._look(at)

    def _look(self, at: int) -> int:
        """Look whether the candidate, which begins here, may still be calls."""
        parser = self._parser_at(at, is_marked=bool(self._marker))
        if not self._is_possible(parser):
            return self._give_up(parser)
        length = len(parser.text)
        self._next_look = self._length + max(_FEWEST_NEW, length // 4)
        return length

    def _parser_at(self, at: int, *, is_marked: bool = True) -> ToolParser:
        self._parts = ["".join(self._parts)]
        text = self._parts[0][at:]
        is_strict = is_marked and self._has_mentions
        return ToolParser(
            text,
            self._tools,
            is_marked=is_marked,
            reports_misfits=self._repairs,
            is_strict=is_strict,
            cuts_results=is_marked and not self._may_be_shown,
        )

    def _is_possible(self, parser: ToolParser) -> bool:
        return len(parser.text) <= MOST_HELD and parser.is_possible()

    def _give_up(self, parser: ToolParser) -> int:
        """Go on after the beginning of a candidate that is something else."""
        at, self._candidate = self._candidate, None
        if self._marker:
            self._given_up = None if self._has_mentions else at
            self._turn_end, self._undecided = None, len(self._marker)
        return self._search("\n" + parser.text, 1 + len(self._marker))
