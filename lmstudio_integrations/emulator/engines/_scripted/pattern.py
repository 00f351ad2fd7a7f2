"""A short text that a regular expression matches.

Only what can be written down directly is understood: literals, classes, groups, alternatives, repeats and anchors.
Looking around and back is not. Whoever asks checks the text against the pattern.
"""

import re
import string
from collections.abc import Iterator

_ATOM = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]|\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|[^|()*+?]", re.DOTALL)
_REPEAT = re.compile(r"(?:([*+?])|\{(\d*)(,?)(\d*)\})[?+]?")
_GROUP = re.compile(r"\((?:\?:|\?P?<[A-Za-z_]\w*>|(?!\?))")
_ANCHORS = frozenset({"^", "$", r"\A", r"\Z", r"\z", r"\b", r"\B"})
_LONGEST = 100_000
_CANDIDATES = "a0A " + string.printable


class UnreadablePatternError(Exception):
    """A pattern has parts that are not understood here."""


def matching(pattern: str, repeats: int = 0) -> str:
    """Return a text for a pattern.

    Args:
        pattern: A regular expression.
        repeats: How often to repeat what may be repeated, beyond the least.

    Raises:
        UnreadablePatternError: If the pattern has parts that are not understood here.
    """
    reader = _Reader(pattern, repeats)
    text = reader.alternatives()
    if reader.rest:
        raise UnreadablePatternError(pattern)
    return text


class _Reader:
    """Reads a pattern from left to right, and writes as it reads."""

    def __init__(self, pattern: str, repeats: int) -> None:
        self.rest = pattern
        self._repeats = repeats

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
            text = self._single()
            repeat = _REPEAT.match(self.rest)
            if repeat:
                self.rest = self.rest[repeat.end() :]
            times = _times(repeat, self._repeats) if repeat else 1
            if len(text) * times > _LONGEST:
                raise UnreadablePatternError(f"more than {_LONGEST} characters")
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
        return "" if atom[0] in _ANCHORS else _character(atom[0])

    def _take(self, sign: str) -> bool:
        if not self.rest.startswith(sign):
            return False
        self.rest = self.rest[1:]
        return True


def _times(repeat: re.Match[str], more: int) -> int:
    sign, low, comma, high = repeat.groups()
    if sign:
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
    else:
        least = int(low or 0)
        most = int(high) if high else (None if comma else least)
    return least + more if most is None else min(least + more, most)


def _character(atom: str) -> str:
    """Return a character that one atom of a pattern stands for; itself if it is one."""
    try:
        fits = re.compile(atom, re.DOTALL).fullmatch
    except re.error as error:
        raise UnreadablePatternError(atom) from error
    for character in _CANDIDATES + atom:
        if fits(character):
            return character
    raise UnreadablePatternError(atom)
