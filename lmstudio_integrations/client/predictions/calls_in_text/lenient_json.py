"""Reads the values in the arguments of a tool call: JSON and Python literals, also with the mistakes that models make.

Mended are quotes, missing and superfluous commas, bare keys, and literals. Nothing is completed: a value that the text
cuts off is no value, because a tool must not run with half of a path. Libraries that repair JSON do complete it.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Self

from lmstudio_integrations._support.typeguards import is_list, is_object

MAX_DEPTH = 64
"""Values that are nested more deeply are no arguments; Python's stack would end."""

_SPACE = re.compile(r"[\s▁]*")
"""Tokenizers write blanks as `▁`."""

_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?", re.ASCII)
_LEADING_ZEROS = re.compile(r"\A(-?)0+(?=\d)")
_SCALAR = re.compile(r"[-+.\w]+")
_BLANKS = ("", " ")
_KEY = re.compile(r"[\w$][\w$.-]*")

_LITERALS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}

_PYTHON = ('"""', "'''")
_DELIMITERS = {'"""': '"""', "'''": "'''", "<escape>": "<escape>", '<|"|>': '<|"|>'}
"""What begins and ends a string without escapes: Python's, and Gemma's."""

_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’"}
"""What begins and ends a string with escapes."""

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "/": "/", "\\": "\\", '"': '"', "'": "'"}
_PLAIN = {quote: re.compile(rf"[^\\{re.escape(quote)}]+") for quote in "\"'”’"}
_UNICODE = re.compile(r"u(?:[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|[0-9a-fA-F]{4})")
_PART_OF_ESCAPE = re.compile(r"(?:u[0-9a-fA-F]{0,3}|u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?)?\Z")


class NoCallError(Exception):
    """The text is no tool call, whatever follows."""


class CutOffError(Exception):
    """The text ends before the call does."""


class WrittenNumber(float):
    """A number with its text, which an argument that takes texts keeps: `3.10` is another version than `3.1`."""

    _text: str

    def __new__(cls, text: str) -> Self:
        """Read the number of a text."""
        number = super().__new__(cls, text)
        number._text = text
        return number

    def __str__(self) -> str:
        """Return the text."""
        return self._text


def number_of(text: str) -> int | WrittenNumber:
    is_whole = text.removeprefix("-").isdecimal() and str(int(text)) == text
    return int(text) if is_whole else WrittenNumber(text)


def json_of(value: Any) -> str:
    """Return a value as JSON, with numbers as they were written."""
    if is_object(value):
        members = (f"{json.dumps(name, ensure_ascii=False)}: {json_of(each)}" for name, each in value.items())
        return f"{{{', '.join(members)}}}"
    if is_list(value):
        return f"[{', '.join(map(json_of, value))}]"
    if isinstance(value, WrittenNumber):
        text = _LEADING_ZEROS.sub(r"\1", str(value).removeprefix("+"))
        return text if _JSON_NUMBER.fullmatch(text) else float.__repr__(value)
    return json.dumps(value, ensure_ascii=False)


def plain(value: Any) -> Any:
    """Return a value without the texts of its numbers."""
    return json.loads(json_of(value))


class TextCursor:
    """A text, and how far it was read.

    Args:
        text: The text.
        at: Where reading begins.
    """

    def __init__(self, text: str, at: int = 0) -> None:
        self.text: str = text
        self.at: int = at

    @property
    def is_at_end(self) -> bool:
        """Whether everything was read."""
        return self.at >= len(self.text)

    def skip_space(self) -> None:
        """Skip white space."""
        self.at = self.match(_SPACE).end()

    def match(self, pattern: "re.Pattern[str]") -> "re.Match[str]":
        """Return what the pattern matches here, without reading it.

        Raises:
            NoCallError, CutOffError: If it matches nothing.
        """
        match = pattern.match(self.text, self.at)
        if match is None:
            raise self.failure()
        return match

    def skip(self, token: str) -> bool:
        """Skip a token, if it is here.

        Raises:
            CutOffError: If the text ends within it.
        """
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        rest = len(self.text) - self.at
        if rest < len(token) and token.startswith(self.text[self.at :]):
            raise CutOffError
        return False

    def expect(self, token: str) -> None:
        """Skip a token.

        Raises:
            NoCallError, CutOffError: If it is not here.
        """
        if not self.skip(token):
            raise self.failure()

    def is_closed(self, bracket: str) -> bool:
        """Skip white space, commas and the closing bracket; return whether that was there.

        Raises:
            CutOffError: If the text ends before it.
        """
        self.skip_space()
        while self.skip(","):
            self.skip_space()
        if self.is_at_end:
            raise CutOffError
        return self.skip(bracket)

    def failure(self) -> NoCallError | CutOffError:
        """Return why reading fails here: at the end of the text, more of it could still mend that."""
        return CutOffError() if self.is_at_end else NoCallError()


def read_value(text: TextCursor, depth: int = 0) -> Any:
    """Read a value.

    Raises:
        NoCallError, CutOffError: If there is none.
    """
    text.skip_space()
    if text.is_at_end or depth > MAX_DEPTH:
        raise text.failure()
    if text.text[text.at] == "{":
        return read_object(text, depth)
    if text.text[text.at] == "[":
        return _read_list(text, depth)
    string = _read_string(text)
    return _read_scalar(text) if string is None else string


def read_object(text: TextCursor, depth: int = 0) -> dict[str, Any]:
    """Read an object or a dict.

    Raises:
        NoCallError, CutOffError: If there is none.
    """
    members: dict[str, Any] = {}
    for key in read_members(text):
        if key in members:  # which of the two is meant?
            raise NoCallError
        members[key] = read_value(text, depth + 1)
    return members


def read_whole_object(whole: str) -> dict[str, Any]:
    """Read an object or a dict that is all of a text.

    Raises:
        NoCallError, CutOffError: If it is none, or has something else beside it.
    """
    text = TextCursor(whole)
    text.skip_space()
    value = read_object(text)
    text.skip_space()
    if not text.is_at_end:
        raise NoCallError
    return value


def read_members(text: TextCursor) -> Iterator[str]:
    """Read an object: yield each key, after which the caller reads the value.

    Templates that escape braces make models double them. MiniMax also writes `{name => value}` and `{--name value}`.
    """
    text.expect("{")
    end = "}}" if text.skip("{") else "}"
    while not text.is_closed(end):
        is_option = text.skip("--")
        key = _read_string(text)
        if key is None:
            bare = text.match(_KEY)
            key, text.at = bare.group(), bare.end()
        text.skip_space()
        if not (is_option or text.skip("=>")):
            text.expect(":")
        text.skip_space()
        if text.is_at_end:
            raise CutOffError
        yield key


def _read_list(text: TextCursor, depth: int) -> list[Any]:
    text.expect("[")
    items: list[Any] = []
    end = text.at
    while not text.is_closed("]"):
        if items and isinstance(items[-1], str) and text.text[end : text.at] in _BLANKS:  # one string, or two?
            raise NoCallError
        items.append(read_value(text, depth + 1))
        end = text.at
    return items


def _read_string(text: TextCursor) -> str | None:
    for quote, end in _DELIMITERS.items():
        if text.skip(quote):
            value = _read_until(text, end)
            if "\\" in value and quote in _PYTHON:  # it has escapes
                raise NoCallError
            return value
    for quote, end in _QUOTES.items():
        if text.skip(quote):
            return _read_escaped(text, end)
    return None


def _read_until(text: TextCursor, end: str) -> str:
    begin, stop = text.at, text.text.find(end, text.at)
    if stop < 0:
        raise CutOffError
    text.at = stop + len(end)
    return text.text[begin:stop]


def _read_escaped(text: TextCursor, end: str) -> str:
    """Read the rest of a string with escapes of JSON; line breaks in it are those of the string."""
    whole, plain, at = text.text, _PLAIN[end], text.at
    parts, escapes = list[str](), set[str]()
    while True:
        match = plain.match(whole, at)
        if match is not None:
            parts.append(match.group())
            at = match.end()
        if at >= len(whole):
            raise CutOffError
        if whole[at] == end:
            break
        part, at = _escaped(whole, at + 1)
        parts.append(part)
        escapes.add(part)
    text.at = at + 1
    # An unknown escape shows that the model escapes nothing: is "\t" a tab then, or the beginning of a folder?
    if not escapes.isdisjoint("\b\f\n\r\t") and any(len(each) > 1 and each[-1].isalpha() for each in escapes):
        raise NoCallError
    return "".join(parts)


def _escaped(whole: str, at: int) -> tuple[str, int]:
    """Return the character of an escape, after its backslash, and where it ends."""
    if _PART_OF_ESCAPE.match(whole, at):
        raise CutOffError
    match = _UNICODE.match(whole, at)
    if match is None:  # what is no escape in JSON stands for itself, such as those of regular expressions
        return _ESCAPES.get(whole[at], "\\" + whole[at]), at + 1
    character: str = json.loads(f'"\\{match.group()}"')
    if "\ud800" <= character <= "\udfff":  # half of a character
        raise NoCallError
    return character, match.end()


def _read_scalar(text: TextCursor) -> Any:
    """Read a number, or a literal of JSON or Python."""
    match = text.match(_SCALAR)
    if match.end() == len(text.text):  # a bracket at least must follow
        raise CutOffError
    text.at, scalar = match.end(), match.group()
    if _NUMBER.fullmatch(scalar):
        if not math.isfinite(float(scalar)):
            raise NoCallError
        return number_of(scalar)
    if scalar not in _LITERALS:
        raise NoCallError
    return _LITERALS[scalar]
