"""Finds where calls may begin in a text that grows, so that a stream holds back only what may be markup."""

from lmstudio_integrations.client.predictions.tool_parser.formats import (
    BEGINNING_OF_REASONING,
    END_OF_REASONING,
    MARKERS,
    NEXT_TURNS,
)
from lmstudio_integrations.client.predictions.tool_parser.parser import ParseResult, Surroundings, ToolParser
from lmstudio_integrations.client.predictions.tool_parser.tools import OfferedTools

MOST_HELD = 1 << 18
"""Characters that may be held back; longer calls stay text."""

_LONGEST_STEP = 1 << 9
"""Characters that are looked at together, so that a text of many tags takes linear time."""

_FEWEST_NEW = 16
"""How many characters of a candidate must be new before it is read again; a quarter of a long one."""


class StreamingToolParser:
    """Watches one text: a response, or reasoning.

    The first marker in it decides: a text that goes on after a marker without a call only mentions them. What precedes
    the end of reasoning in the text of a response does not count.

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
        self._candidate: int | None = None
        """Where the calls may begin."""
        self._is_marked = False
        self._given_up: int | None = None
        """Where the first marker is, if what follows on it cannot be read."""
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
            parser = self._parser_at(self._candidate)
            if self._is_possible(parser):
                return self._result_at(self._candidate, parser.parse())
            self._give_up(parser)
        if self._given_up is None:
            return None
        return self._result_at(self._given_up, self._parser_at(self._given_up).unreadable())

    def _result_at(self, at: int, result: ParseResult | None) -> tuple[int, ParseResult] | None:
        return None if result is None else (self._begun_at + at, result)

    def _search(self, window: str) -> int:
        """Look for the first marker after the first character of a text; return how many characters are held."""
        while (length := self._search_in(window)) is None:
            window = "\n" + self._parts[0]
        return length

    def _search_in(self, window: str) -> int | None:
        """Do the same up to the end of reasoning, if that is in the text; then return `None`."""
        at = 1
        if self._is_first:
            first = window.lstrip()
            marker = MARKERS.match(window, len(window) - len(first))
            name = first.removeprefix("<")
            is_part = (marker is not None and not MARKERS.is_whole(marker)) or self._tools.may_begin(name)
            if not self._tools.begins(name) and (not first or is_part):
                self._tail = window[-len(first) - 1 :]
                return self._length
            self._is_first = False
            if marker is None and (first[0] in "{[`" or self._tools.begins(name)):
                return self._begin_candidate(0, is_marked=False)
        while (match := MARKERS.find(window, at)) is not None:
            if not MARKERS.is_whole(match):
                self._tail = window[match.start() - 1 :]
                return 0 if self._is_over else len(window) - match.start()
            begin, at = self._length - len(window) + match.start(), match.end()
            if match.group() == END_OF_REASONING:
                if self._ends_reasoning(begin, window[at:]):
                    return None
            elif not self._is_over:
                if match.group() not in NEXT_TURNS and self._surroundings_of(begin).allow_marker:
                    return self._begin_candidate(begin, is_marked=True)
                self._is_over = True
        self._tail = window[-1]
        return 0

    def _ends_reasoning(self, at: int, rest: str) -> bool:
        """Whether a tag ends the reasoning; if so, begin anew with the rest of the text."""
        if self._has_reasoned:
            return False
        before = self._surroundings_of(at)
        is_begun = before.beginning == BEGINNING_OF_REASONING
        if not (before.allow_marker or (is_begun and not before.are_quoting)):
            return False
        self._has_reasoned = True
        is_tagged = is_begun or before.end_with_line
        self._begin(self._begun_at + self._length - len(rest), rest, marked_only=not is_tagged)
        return True

    def _surroundings_of(self, at: int) -> Surroundings:
        """Return what precedes a marker, after the last one that was looked at."""
        since, length = "".join(self._since), at - self._since_at
        self._surroundings.advance(since[:length])
        self._since, self._since_at = [since[length:]], at
        return self._surroundings

    def _begin_candidate(self, at: int, *, is_marked: bool) -> int:
        self._candidate, self._is_marked = at, is_marked
        return self._look(at)

    def _look(self, at: int) -> int:
        """Look whether the candidate, which begins here, may still be calls."""
        parser = self._parser_at(at)
        if not self._is_possible(parser):
            return self._give_up(parser)
        length = len(parser.text)
        self._next_look = self._length + max(_FEWEST_NEW, length // 4)
        return length

    def _parser_at(self, at: int) -> ToolParser:
        self._parts = ["".join(self._parts)]
        text = self._parts[0][at:]
        return ToolParser(text, self._tools, is_marked=self._is_marked, reports_misfits=self._repairs)

    def _is_possible(self, parser: ToolParser) -> bool:
        return len(parser.text) <= MOST_HELD and parser.is_possible()

    def _give_up(self, parser: ToolParser) -> int:
        """Go on after the beginning of a candidate that is something else."""
        at, self._candidate = self._candidate, None
        if self._is_marked:
            self._is_over, self._given_up = True, at
        return self._search("\n" + parser.text)
