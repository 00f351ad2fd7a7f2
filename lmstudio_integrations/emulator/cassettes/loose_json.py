"""Reads JSON where it stands in a text, for `redaction`: also if it is cut off, incorrect, or in the quotes of Python.

What cannot be read is left out. Each literal says where it is, so that it can be replaced in the text.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lmstudio_integrations._support.typeguards import is_object

_DEEPEST = 100
"""Values that are nested more deeply are not read; the text after their beginning is."""

_STRING = r"\"[^\"\\]*+(?:\\.[^\"\\]*+)*+(?:\"|\\?\Z)|'[^'\\]*+(?:\\.[^'\\]*+)*+(?:'|\\?\Z)"
_TOKEN = re.compile(rf"\s*+(?:(?P<sign>[{{}}\[\],:])|(?P<string>{_STRING})|(?P<bare>[^\s{{}}\[\],:\"']++))", re.DOTALL)
_COLON = re.compile(r"\s*+:")
_BEGIN = re.compile(r"\{|(?:\"(?:[^\"\\]|\\.){1,100}+\"|'(?:[^'\\]|\\.){1,100}+')\s*+:", re.DOTALL)
"""An object, or a member that stands alone. Names have a limit, so that a text is read in linear time."""

_CLOSED_BY = {"{": "}", "[": "]"}
_CONSTANTS = {"true", "false", "null", "True", "False", "None"}
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)


@dataclass(slots=True, eq=False)
class Literal:
    """A string, number or bare word in a text.

    Attributes:
        start: Where it begins, without quotes.
        end: Where it ends, without quotes.
        text: What it says.
        is_string: Whether it is in quotes.
        is_secret: Whether all of it is to be hidden; `redaction` decides.
    """

    start: int
    end: int
    text: str
    is_string: bool
    is_secret: bool = False

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class Found:
    """A JSON value in a text.

    Attributes:
        start: Where it begins.
        end: Where it ends.
        value: The value with literals in the place of strings and numbers, and `None` in that of constants.
        literals: All literals in it, also the names of members.
    """

    start: int
    end: int
    value: Any = None
    literals: list[Literal] = field(default_factory=list[Literal])


class _Repeated(list[Any]):
    """The values of members of an object that have the same name."""


def values(text: str) -> Iterator[Found]:
    """Return the objects in a text, and the members that stand alone."""
    at = 0
    while (begin := _BEGIN.search(text, at)) is not None:
        found = _read(text, begin.start(), is_member=begin.group() != "{")
        if found.literals:
            yield found
        at = max(found.end, begin.start() + 1)


def whole(text: str) -> Found | None:
    """Return the value that a text is; `None` if it is not valid JSON as a whole."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    found = _read(text, 0)
    return None if text[found.end :].strip() else found


def unescaped(text: str) -> tuple[str, Callable[[int], int]]:
    """Return a text without one level of escapes, and what maps a place in it to the one in the original."""
    parts: list[str] = []
    ends, ends_in_text = [0], [0]
    size = 0
    for match in _ESCAPE.finditer(text):
        plain = text[ends_in_text[-1] : match.start()]
        parts += (plain, _character(match.group()))
        size += len(plain) + len(parts[-1])
        ends.append(size)
        ends_in_text.append(match.end())
    parts.append(text[ends_in_text[-1] :])

    def place(index: int) -> int:
        last = bisect_right(ends, index) - 1
        return ends_in_text[last] + index - ends[last]

    return "".join(parts), place


def _character(escape: str) -> str:
    try:
        character: str = json.loads(f'"{escape}"', strict=False)
    except ValueError:
        return escape[1:]
    return character


def _read(text: str, at: int, *, is_member: bool = False) -> Found:
    """Return the value that begins at a place, or the members of an object that begin there, as far as can be read."""
    reader = _Reader(Found(at, at, {} if is_member else None), is_member=is_member)
    while (token := _TOKEN.match(text, reader.found.end)) is not None and reader.read(token):
        pass
    return reader.found


class _Reader:
    """Reads a value token by token.

    Args:
        found: What is found.
        is_member: Whether it is an object that has no braces.
    """

    def __init__(self, found: Found, *, is_member: bool) -> None:
        self.found = found
        # Of each open object or list: what closes it, the value, and the name whose value comes next.
        self._stack: list[tuple[str, Any, list[str]]] = [("", found.value, [])] if is_member else []

    def read(self, token: re.Match[str]) -> bool:
        """Read a token, if it can come next; return whether another one can."""
        sign, end = token["sign"], token.end()
        closed_by, parent, name = self._stack[-1] if self._stack else ("", None, [])
        if sign in {",", ":", "}", "]"}:
            if sign == closed_by:
                self._stack.pop()
            elif sign != "," or not self._stack:
                return False
        elif is_object(parent) and not name:
            colon = _COLON.match(token.string, end)
            if sign is not None or colon is None:
                return False
            name.append(self._literal(token).text)
            end = colon.end()
        elif sign is None:
            is_constant = token["bare"] in _CONSTANTS
            self._put(parent, name, None if is_constant else self._literal(token))
        elif len(self._stack) < _DEEPEST:
            value: Any = {} if sign == "{" else []
            self._put(parent, name, value)
            self._stack.append((_CLOSED_BY[sign], value, []))
        else:
            return False
        self.found.end = end
        return bool(self._stack)

    def _literal(self, token: re.Match[str]) -> Literal:
        self.found.literals.append(_literal(token))
        return self.found.literals[-1]

    def _put(self, parent: Any, name: list[str], value: Any) -> None:
        if parent is None:
            self.found.value = value
        elif not is_object(parent):
            parent.append(value)
        elif (member := name.pop()) not in parent:
            parent[member] = value
        elif isinstance(parent[member], _Repeated):
            parent[member].append(value)
        else:
            parent[member] = _Repeated([parent[member], value])


def _literal(token: re.Match[str]) -> Literal:
    string = token["string"]
    if string is None:
        return Literal(token.start("bare"), token.end(), token["bare"], is_string=False)
    is_closed = len(string) > 1 and string[-1] == string[0]
    start, end = token.start("string") + 1, token.end() - is_closed
    return Literal(start, end, unescaped(token.string[start:end])[0], is_string=True)
