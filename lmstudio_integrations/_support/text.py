"""Texts: as JSON, and for people, where they are shortened for messages and made safe for terminals.

Texts of servers and models could control a terminal. Those for terminals have what would control them, or reorder or
hide text, escaped. The command line and the progress bars of the client apply that right before a text reaches one.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from pydantic_core import to_json, to_jsonable_python  # noqa: TID251 - with what it rejects below

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
    except Exception:  # noqa: BLE001 - whatever it raises, the message is about something else
        return f"a value of type {type(value).__name__}"


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


class Escapes(dict[int, str]):
    """For `str.translate`: what each character is shown as. Filled as the characters occur.

    Args:
        escape: Returns how a character is written that is not shown; by default with a backslash.
        kept: Controls that stay.
    """

    def __init__(
        self,
        escape: Callable[[str], str] = lambda character: character.encode("unicode_escape").decode(),
        kept: str = "",
    ) -> None:
        super().__init__()
        self._escape = escape
        self._shown = {*_SHOWN, *kept}

    def __missing__(self, code: int) -> str:
        character = chr(code)
        is_escaped = unicodedata.category(character) in _ESCAPED or code in _INVISIBLE
        self[code] = self._escape(character) if is_escaped and character not in self._shown else character
        return self[code]


_TEXT = Escapes(kept="\n\t")
_LINE = Escapes()


def printable(text: str) -> str:
    r"""Return a text of any number of lines, for example with `\x1b` for an escape character."""
    return text.translate(_TEXT)


def printable_line(text: str) -> str:
    """Return a text as one line: a name cannot begin another one."""
    return text.translate(_LINE)


# JSON -----------------------------------------------------------------------------------------------------------------
# All JSON that may have texts of users, tools or models is written here. Python's strings may hold half of a surrogate
# pair, and a text that was cut between the two often does. UTF-8 cannot represent it, so pydantic-core rejects it; JSON
# can, as an escape.

_SURROGATE = re.compile("[\ud800-\udfff]")


def dumps(value: Any) -> str:
    """Return a value as JSON text. Lone surrogates are escaped; infinity and NaN become null.

    Raises:
        ValueError: If it, or something in it, cannot be written as JSON.
        TypeError: If a name is not a string, in a value with lone surrogates.
        RecursionError: If it is nested too deeply, with lone surrogates.
    """
    try:
        return to_json(value, inf_nan_mode="null").decode()
    except ValueError:  # a lone surrogate
        pass
    # `json.dumps` cannot write infinity as null. A round trip replaces it.
    finite = json.loads(json.dumps(value, default=to_jsonable_python), parse_constant=lambda _: None)
    written = json.dumps(finite, ensure_ascii=False, separators=(",", ":"))
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", written)


# Why a response ended -------------------------------------------------------------------------------------------------

COMPLETE = "complete"

_WORDS = {
    "eosFound": COMPLETE,
    "stopStringFound": "a stop string was found",
    "toolCalls": "tools were called",
    "userStopped": "stopped",
    "contextLengthReached": "the context window is full",
    "maxPredictedTokensReached": "the token limit is reached",
    "repetition": "stopped, because it only repeated itself",
    "modelUnloaded": "the model was unloaded",
    "disconnected": "the client disconnected",
}


def end_in_words(stop_reason: str) -> str:
    """Return a stop reason of a result or of the emulator's records in words; an unknown one as it is."""
    return _WORDS.get(stop_reason, stop_reason)


REMEDIES = {
    "maxPredictedTokensReached": "raise max_tokens",
    "contextLengthReached": "load the model with a larger context length, or shorten the prompt",
    "repetition": "the model only repeated itself, so use another one, or set repeat_penalty",
}
"""What helps a response that was cut off, by the stop reason."""
