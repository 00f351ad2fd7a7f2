"""A short text that a regular expression matches, for schemas with a `pattern`.

Supports literals, classes, groups, alternatives, repeats and anchors, but neither look-around nor back-references. An
anchor in the middle may make the text wrong, so callers check it against the pattern.
"""

import re
import string
from collections.abc import Iterator
from functools import lru_cache

from lmstudio_integrations.emulator.engines.scripted.regex import Pattern, PatternError

MAX_PATTERN_LENGTH = 1_000

MAX_PARTS = 10_000
"""Literals and classes of a pattern once all repeats are written out."""

MAX_STEPS = 10_000_000
"""A search may take a step for each of these parts and each character; so many take a fifth of a second."""

_ATOM = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]|\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|[^|()*+?]", re.DOTALL)
_REPEAT = re.compile(r"(?:([*+?])|\{(\d*)(,?)(\d*)\})[?+]?")
_GROUP = re.compile(r"\((?:\?:|\?P?<[A-Za-z_]\w*>|(?!\?))")
_ANCHORS = frozenset({"^", "$", r"\A", r"\Z", r"\z", r"\b", r"\B"})
_CANDIDATES = "a0A " + string.printable


class UnsupportedPatternError(Exception):
    """A pattern has parts that are not supported."""


class LargePatternError(UnsupportedPatternError):
    """A pattern, or a text for it, is larger than the limits."""


def sample(pattern: str, repeats: int = 0) -> str:
    """Return a text for a pattern.

    Args:
        pattern: A regular expression.
        repeats: How often to repeat what may be repeated, beyond the minimum.

    Raises:
        UnsupportedPatternError: If the pattern has parts that are not supported.
        LargePatternError: If the pattern, or the text, is too large.
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise LargePatternError(f"a pattern has more than {MAX_PATTERN_LENGTH} characters")
    reader = _Reader(pattern, repeats)
    text = reader.alternatives()
    if reader.rest:
        raise UnsupportedPatternError(pattern)
    if len(text) * reader.parts > MAX_STEPS:
        raise LargePatternError(f"a text of {len(text)} characters is too long for a pattern of {reader.parts} parts")
    return text


class _Reader:
    """Reads a pattern from start to end, and writes the text as it reads."""

    def __init__(self, pattern: str, repeats: int) -> None:
        self.rest = pattern
        self.parts = 0
        self._repeats = repeats

    def alternatives(self) -> str:
        """Read up to the end of the group; return the shortest alternative, or the longest if repeats are requested."""
        texts = ["".join(self._repeated())]
        while self._skip("|"):
            texts.append("".join(self._repeated()))
        return (max if self._repeats else min)(texts, key=len)

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
            if self.parts > MAX_PARTS:
                raise LargePatternError(f"a pattern has more than {MAX_PARTS} parts, its repeats written out")
            yield text * times

    def _single(self) -> str:
        group = _GROUP.match(self.rest)
        if group:
            self.rest = self.rest[group.end() :]
            text = self.alternatives()
            if not self._skip(")"):
                raise UnsupportedPatternError(self.rest)
            return text
        atom = _ATOM.match(self.rest)
        if not atom:
            raise UnsupportedPatternError(self.rest)
        self.rest = self.rest[atom.end() :]
        self.parts += 1
        return "" if atom[0] in _ANCHORS else _character(atom[0])

    def _skip(self, sign: str) -> bool:
        found = self.rest.startswith(sign)
        self.rest = self.rest[found:]
        return found


def _bounds(repeat: re.Match[str]) -> tuple[int, int | None]:
    """Return how often a repeat repeats, at least and at most."""
    sign, low, comma, high = repeat.groups()
    if sign:
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
    least = int(low or 0)
    return least, int(high) if high else (None if comma else least)


@lru_cache(maxsize=512)
def _character(atom: str) -> str:
    """Return a character that one atom of a pattern matches; the atom itself if it is a character."""
    if len(atom) == 1 and atom != ".":
        return atom
    try:
        pattern = Pattern(f"^(?:{atom})$")
    except PatternError as error:
        raise UnsupportedPatternError(atom) from error
    for character in _CANDIDATES + atom:
        if pattern.is_found_in(character):
            return character
    raise UnsupportedPatternError(atom)
