"""Regular expressions of a schema, in the form that llama.cpp supports.

llama.cpp matches a pattern against the JSON text, in which a quotation mark is two characters, and supports only a part
of the syntax; otherwise it drops the whole schema without an error, or writes invalid JSON. So shorthands become
character classes, classes omit what JSON must escape, and literals are escaped as in JSON.
"""

import json
import re
from collections.abc import Iterator

Ranges = tuple[tuple[int, int], ...]
"""Code points, from and to, in ascending order."""

_ALL: Ranges = ((0, 0x10FFFF),)
_ASCII: Ranges = ((0, 0x7F),)
_ESCAPED: Ranges = ((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C))
"""What must be escaped in a JSON string."""

_BREAKS: Ranges = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))
_DIGITS: Ranges = ((0x30, 0x39),)
_WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACES: Ranges = (
    *((0x09, 0x0D), (0x1C, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)),
    *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)


def _without(ranges: Ranges, others: Ranges) -> Ranges:
    """Return the characters of the first ranges that are not in the others."""
    return tuple(_subtract(ranges, others))


def _subtract(ranges: Ranges, others: Ranges) -> Iterator[tuple[int, int]]:
    for first, last in ranges:
        for begin, end in sorted(others):
            if end >= first and begin <= last:
                if begin > first:
                    yield first, begin - 1
                first = end + 1  # noqa: PLW2901 - the rest of this range
        if first <= last:
            yield first, last


_SETS: dict[str, Ranges] = {
    r"\d": _DIGITS,
    r"\w": _WORD,
    r"\s": _SPACES,
    # Beyond ASCII, dialects disagree on what is a digit or a letter.
    r"\D": _without(_ASCII, _DIGITS),
    r"\W": _without(_ASCII, _WORD),
    r"\S": _without(_ALL, _SPACES),
    ".": _without(_ALL, _BREAKS),
}
_CONTROLS = {r"\n": "\n", r"\r": "\r", r"\t": "\t", r"\f": "\f", r"\v": "\v"}

_CODE = r"\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}"
_ONE = rf"(?:{_CODE}|\\[^dwsDWS]|[^\\])"
_TOKEN = re.compile(
    rf"\[(?P<negated>\^?)(?P<members>(?:\\.|[^\]\\])+)\]"
    rf"|(?P<group>\((?:\?:|\?P?<[A-Za-z_]\w*>|(?!\?))|\)|\|)"
    rf"|(?P<repeat>[*+?]|\{{(?:\d+,?\d*|,\d+)\}})[?]?"
    rf"|(?P<set>\\[dwsDWS]|\.)"
    rf"|(?P<one>{_CODE}|\\.|[^\\^$()\[*+?])",
    re.DOTALL,
)
_MEMBER = re.compile(rf"(?P<first>{_ONE})-(?P<last>{_ONE})|(?P<set>\\[dwsDWS])|(?P<one>{_ONE})", re.DOTALL)
_SPECIAL = re.compile(r"[\^$.\[\]()|{}*+?]")
_WRITTEN = {"\\": r"\\", '"': '["]'}
"""Outside of a class, llama.cpp does not escape a quotation mark in the grammar that it writes."""


class _UnknownError(Exception):
    """A part of a pattern is not supported."""


def supported_pattern(pattern: str) -> str | None:
    """Return a pattern that llama.cpp supports, or `None` if there is none.

    It allows nothing that the given one does not; characters that JSON must escape are omitted from classes.
    """
    if not (pattern.startswith("^") and pattern.endswith("$")):
        return None
    try:
        return f"^{''.join(_parts(pattern[1:-1]))}$"
    except _UnknownError:
        return None


def _parts(body: str) -> Iterator[str]:
    at = 0
    while at < len(body):
        token = _TOKEN.match(body, at)
        if token is None:
            raise _UnknownError
        at = token.end()
        match token.lastgroup:
            case "members":
                yield _set(_class(token["members"], negated=bool(token["negated"])))
            case "group":
                yield token["group"][0]
            case "repeat":
                yield token["repeat"]
            case "set":
                yield _set(_SETS[token["set"]])
            case _:
                yield _literal(_character(token["one"]))


def _class(members: str, *, negated: bool) -> Ranges:
    ranges: list[tuple[int, int]] = []
    for member in _MEMBER.finditer(members):
        if member["set"]:
            ranges += _SETS[member["set"]]
        else:
            first, last = member["first"] or member["one"], member["last"] or member["one"]
            ranges.append((ord(_character(first)), ord(_character(last))))
    characters = tuple(ranges)
    return _without(_ALL, characters) if negated else characters


def _set(ranges: Ranges) -> str:
    """Return the class of those characters that JSON does not escape."""
    plain = _without(ranges, _ESCAPED)
    if not plain:
        raise _UnknownError
    members = "".join(rf"\U{first:08X}-\U{last:08X}" for first, last in plain)
    return f"[{members}]"


def _character(token: str) -> str:
    """Return the character that a token stands for."""
    if re.fullmatch(_CODE, token):
        return chr(int(token[len(r"\x") :], 16))
    if token in _CONTROLS:
        return _CONTROLS[token]
    if token.startswith("\\") and token[1:].isalnum():
        raise _UnknownError
    return token[-1]


def _literal(character: str) -> str:
    """Return the pattern of one character, as JSON writes it."""
    written = "".join(_WRITTEN.get(part) or re.sub(_SPECIAL, r"\\\g<0>", part) for part in _as_json(character))
    return f"({written})" if len(_as_json(character)) > 1 else written


def _as_json(character: str) -> str:
    return json.dumps(character, ensure_ascii=False)[1:-1]
