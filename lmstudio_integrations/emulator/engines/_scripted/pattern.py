"""A short text that a regular expression matches.

Only what can be written down directly is understood: literals, classes, groups, alternatives, repeats and anchors.
Looking around and back is not. Whoever asks checks the text against the pattern.
"""

import re
import string
from collections.abc import Iterator
from functools import lru_cache

from lmstudio_integrations.emulator.engines._scripted.search import Pattern, PatternError

LONGEST_PATTERN = 1_000
MOST_PARTS = 10_000
"""Bounds of a pattern: its characters, and its literals and classes once all repeats are written out."""

MOST_STEPS = 10_000_000
"""Bound of a search, which may take a step for each of these parts and each character: a fifth of a second."""

_ATOM = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]|\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|[^|()*+?]", re.DOTALL)
_REPEAT = re.compile(r"(?:([*+?])|\{(\d*)(,?)(\d*)\})[?+]?")
_GROUP = re.compile(r"\((?:\?:|\?P?<[A-Za-z_]\w*>|(?!\?))")
_ANCHORS = frozenset({"^", "$", r"\A", r"\Z", r"\z", r"\b", r"\B"})
_CANDIDATES = "a0A " + string.printable


class UnreadablePatternError(Exception):
    """A pattern has parts that are not understood here."""


class LargePatternError(UnreadablePatternError):
    """A pattern, or a text for it, is larger than the bounds."""


def matching(pattern: str, repeats: int = 0) -> str:
    """Return a text for a pattern.

    Args:
        pattern: A regular expression.
        repeats: How often to repeat what may be repeated, beyond the least.

    Raises:
        UnreadablePatternError: If the pattern has parts that are not understood here.
        LargePatternError: If the pattern, or the text, is too large.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise LargePatternError(f"a pattern has more than {LONGEST_PATTERN} characters")
    reader = _Reader(pattern, repeats)
    text = reader.alternatives()
    if reader.rest:
        raise UnreadablePatternError(pattern)
    if len(text) * reader.parts > MOST_STEPS:
        raise LargePatternError(f"a text of {len(text)} characters is too long for a pattern of {reader.parts} parts")
    return text


class _Reader:
    """Reads a pattern from left to right, and writes as it reads."""

    def __init__(self, pattern: str, repeats: int) -> None:
        self.rest = pattern
        self._repeats = repeats
        self.parts = 0

    def alternatives(self) -> str:
        """Read up to the end of the group; return the shortest alternative, or the longest if length is wanted."""
        texts = [self._sequence()]
        while self._take("|"):
            texts.append(self._sequence())
        return (max if self._repeats else min)(texts, key=len)

    def _sequence(self) -> str:
        return "".join(self._repeated())

    def _repeated(self) -> Iterator[str]:
        while self.rest and self.rest[0] not in "|)":
            before = self.parts
            text = self._single()
            repeat = _REPEAT.match(self.rest)
            if repeat:
                self.rest = self.rest[repeat.end() :]
            least, most = _bounds(repeat) if repeat else (1, 1)
            times = least + self._repeats if most is None else min(least + self._repeats, most)
            self.parts = before + (self.parts - before) * max(times, most or 0, 1)
            if self.parts > MOST_PARTS:
                raise LargePatternError(f"a pattern has more than {MOST_PARTS} parts, its repeats written out")
            yield text * times

    def _single(self) -> str:
        group = _GROUP.match(self.rest)
        if group:
            self.rest = self.rest[group.end() :]
            text = self.alternatives()
            if not self._take(")"):
                raise UnreadablePatternError(self.rest)
            return text
        atom = _ATOM.match(self.rest)
        if not atom:
            raise UnreadablePatternError(self.rest)
        self.rest = self.rest[atom.end() :]
        self.parts += 1
        return "" if atom[0] in _ANCHORS else _character(atom[0])

    def _take(self, sign: str) -> bool:
        if not self.rest.startswith(sign):
            return False
        self.rest = self.rest[1:]
        return True


def _bounds(repeat: re.Match[str]) -> tuple[int, int | None]:
    """Return how often a repeat repeats, at least and at most."""
    sign, low, comma, high = repeat.groups()
    if sign:
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
    least = int(low or 0)
    return least, int(high) if high else (None if comma else least)


@lru_cache(maxsize=512)
def _character(atom: str) -> str:
    """Return a character that one atom of a pattern stands for; itself if it is one."""
    if len(atom) == 1 and atom != ".":
        return atom
    try:
        whole = Pattern(f"^(?:{atom})$")
    except PatternError as error:
        raise UnreadablePatternError(atom) from error
    for character in _CANDIDATES + atom:
        if whole.is_in(character):
            return character
    raise UnreadablePatternError(atom)
