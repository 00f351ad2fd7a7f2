"""Texts for people: shortened for messages, and safe for terminals, where texts of servers and models could control it.

Texts for terminals have what would control them, or reorder or hide text, escaped. The command line and the progress
bars of the client apply that right before a text reaches a terminal.
"""

import json
import unicodedata
from collections.abc import Callable

from lmstudio_integrations._support.secrets import redact_members

_HEAD, _TAIL = 6_144, 2_048
"""Characters of the beginning and the end of a long text that stay."""

_EXCERPT = 200
"""Characters shown of what a model wrote."""

_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of controls, format characters such as bidirectional overrides, lone surrogates, and separators
of lines and paragraphs."""

_INVISIBLE = range(0xE0000, 0xE1000)
"""Tags and variation selectors that can hide a whole text."""

_JOINERS = "\u200c\u200d"
_VISIBLE_SIGNS = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2"
_SHOWN = {*_JOINERS, *_VISIBLE_SIGNS}
"""Format characters that letters and emoji need, or that are signs themselves."""


def shortened(text: str) -> str:
    """Return a text; a very long one without its middle."""
    omitted = len(text) - _HEAD - _TAIL
    return text if omitted <= 0 else f"{text[:_HEAD]} [… {omitted} characters omitted …] {text[-_TAIL:]}"


def shown(value: object) -> str:
    """Return how Python writes a value, for an error message."""
    try:
        return shortened(repr(value))
    except ValueError:  # it writes no integers of more than 4,300 digits
        return "a number of thousands of digits"
    except RecursionError:
        return "a value that is nested too deeply"


def beginning(text: str) -> str:
    """Return the quoted beginning of what a model wrote, for an error message, without the values of secret members."""
    excerpt = redact_members(text[:_EXCERPT])
    return repr(excerpt if len(text) <= _EXCERPT else f"{excerpt}…")


def one_line(text: object) -> str:
    """Return a text, or the message of an error, as one line."""
    return " ".join(str(text).split())


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, for example `2 models`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class _Escapes(dict[int, str]):
    """For `str.translate`: what each character is shown as. Filled as the characters occur.

    Args:
        escape: Returns how a character is written that is not shown.
        kept: Controls that stay.
    """

    def __init__(self, escape: Callable[[str], str], kept: str = "") -> None:
        super().__init__()
        self._escape = escape
        self._shown = {*_SHOWN, *kept}

    def __missing__(self, code: int) -> str:
        character = chr(code)
        is_escaped = unicodedata.category(character) in _ESCAPED or code in _INVISIBLE
        self[code] = self._escape(character) if is_escaped and character not in self._shown else character
        return self[code]


def _backslashed(character: str) -> str:
    return character.encode("unicode_escape").decode()


_TEXT = _Escapes(_backslashed, kept="\n\t")
_LINE = _Escapes(_backslashed)
_JSON = _Escapes(lambda character: json.dumps(character)[1:-1], kept="\n\t")


def printable(text: str) -> str:
    r"""Return a text of any number of lines, for example with `\x1b` for an escape character."""
    return text.translate(_TEXT)


def printable_line(text: str) -> str:
    """Return a text as one line: a name cannot begin another one."""
    return text.translate(_LINE)


def printable_json(document: str) -> str:
    """Return a JSON document that has the same value, with JSON's own escapes."""
    return document.translate(_JSON)
