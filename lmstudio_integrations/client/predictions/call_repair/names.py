"""Which of the known names of tools, arguments and values a model means by an unknown one. Pure.

A wrong guess runs the wrong tool, so names that only look alike do not count: `get_user` is not `set_user`.
"""

import re
from collections.abc import Iterable

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+|\d+")

_SEPARATORS = re.compile(r"(?<=[^\W\d_])[\s_./:-]+|[\s_./:-]+(?=[^\W\d_])|[°'\"`()]")
"""What stands before or after a letter. Between digits, it is a part of the number."""

_LONGEST_NAME = 128
"""Longer ones resemble none: what a model writes may be a whole page of dashes."""

_SHORTEST_WITH_TYPO = 5
"""The letters of a word in which one may be wrong. In shorter ones, one letter makes another word."""

_SIDES = frozenset(
    {"after", "all", "any", "before", "begin", "destination", "end", "every", "except", "exclude", "excluded"}
    | {"excluding", "final", "first", "from", "ignore", "last", "left", "max", "maximum", "min", "minimum", "new"}
    | {"next", "no", "not", "old", "origin", "password", "previous", "receiver", "recipient", "right", "sender"}
    | {"skip", "source", "start", "target", "to", "un", "without"}
)
"""Words that make another argument of one."""

_WITHOUT_MEANING = frozenset({"abs", "absolute", "full", "given", "the"})
"""Words that make no other argument of one."""

_DIRECTIONS = frozenset({"2", "after", "before", "by", "from", "in", "into", "of", "on", "to", "with"})
"""Words between others that may not change places."""

_SYNONYMS = (
    frozenset({"q", "query", "queries", "search", "question", "keyword", "keywords", "term", "prompt"}),
    frozenset({"path", "file", "filename", "filepath"}),
    frozenset({"dir", "directory", "folder", "path"}),
    frozenset({"cmd", "command", "script"}),
    frozenset({"content", "contents", "text", "body"}),
    frozenset({"city", "location", "place", "town"}),
    frozenset({"url", "uri", "link", "href"}),
    frozenset({"limit", "count", "num", "number", "max", "results"}),
    frozenset({"id", "identifier"}),
    frozenset({"message", "msg", "text"}),
)
"""Words that models write for each other in the names of arguments."""

_LONGEST_PREFIX = 3
_SHORT_WORDS = frozenset(
    {"all", "any", "as", "at", "by", "day", "end", "id", "in", "is", "key", "log", "new", "no", "of", "old", "on", "or"}
    | {"out", "row", "set", "sum", "tag", "to", "top", "use"}
)
"""How long the beginning of a word is that is short for it, and words that are not short for another one."""


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case: those of `filePath` are those of `file_path`."""
    return [word.lower() for word in _WORD.findall(name)]


def same_spelling(name: str, known: Iterable[str]) -> list[str]:
    """Return the names that differ only in case and in what separates their words."""
    spelled = _spelling(name) if len(name) <= _LONGEST_NAME else ""
    return [each for each in known if spelled and _spelling(each) == spelled]


def _spelling(name: str) -> str:
    """Return a name without what separates words: `-1` is not `1`, `3.11` not `3.1.1`, and `C++` not `C`."""
    return _SEPARATORS.sub("", name.strip()).lower()


def resembling_tools(name: str, known: Iterable[str]) -> list[str]:
    """Return the tools that an unknown name may mean: in another spelling, after a namespace, or in the plural.

    A name with other words may be that of a tool that this request does not offer.
    """
    known = list(known)
    if len(name) > _LONGEST_NAME:
        return []
    # A model may write a path to a tool, such as `server/read_file`.
    bare = re.split(r"[./:]", name.strip())[-1]
    is_whole = len(words_of(bare)) > 1  # `calendar.delete` does not mean a tool `delete`
    same = same_spelling(name, known) or (same_spelling(bare, known) if is_whole else [])
    return same or [each for each in known if is_whole and _is_in_plural(words_of(bare), words_of(each))]


def _is_in_plural(written: list[str], known: list[str]) -> bool:
    """Whether the words are the same, some of them in the plural in one of the names."""
    return len(written) == len(known) and all(map(_is_same_noun, written, known))


def _is_same_noun(written: str, known: str) -> bool:
    return written == known or known in {f"{written}s", f"{written}es"} or written in {f"{known}s", f"{known}es"}


def resembling_arguments(name: str, known: Iterable[str]) -> list[str]:
    """Return the arguments that an unknown name may mean."""
    known = list(known)
    names, written = same_spelling(name, known), words_of(name) if len(name) <= _LONGEST_NAME else []
    for is_meant in (_is_misspelled, _shares_words, _is_shortened, _is_synonym):
        names = names or [each for each in known if written and is_meant(written, words_of(each))]
    return names


def _is_misspelled(written: list[str], known: list[str]) -> bool:
    """Whether each word is the same, perhaps in another place, or has a typo."""
    if sorted(written) == sorted(known) and (len(known) < 3 or _DIRECTIONS.isdisjoint(known)):
        return True
    return len(written) == len(known) and all(map(_is_same_word, written, known))


def _is_same_word(written: str, known: str) -> bool:
    return _is_same_noun(written, known) or (
        min(len(written), len(known)) >= _SHORTEST_WITH_TYPO and _has_one_typo(written, known)
    )


def _has_one_typo(written: str, known: str) -> bool:
    """Whether two letters are swapped, or a vowel or a double letter is missing or superfluous.

    Models do not hit the wrong key, and other letters make other words: `clone` of `close`, `county` of `country`.
    """
    shorter, longer = sorted((written, known), key=len)
    pairs = enumerate(zip(shorter, longer, strict=False))
    at = next((number for number, (one, other) in pairs if one != other), len(shorter))
    if len(longer) > len(shorter):
        is_weak = longer[at : at + 1] in tuple("aeiou") or longer[at : at + 1] == longer[at - 1 : at]
        return at > 1 and is_weak and shorter[at:] == longer[at + 1 :]  # not "load" and "upload"
    swapped = written[:at] + written[at : at + 2][::-1] + written[at + 2 :]
    return at > 0 and swapped == known


def _shares_words(written: list[str], known: list[str]) -> bool:
    """Whether one of the names is the other one with more words."""
    one, other = set(written), set(known)
    return (one < other or other < one) and (one ^ other).isdisjoint(_SIDES)


def _is_shortened(written: list[str], known: list[str]) -> bool:
    """Whether one of the names is short for the other one: `cmd` for `command`, `q` for `query`, `lat` for `latitude`.

    Other names whose letters are in another one are names themselves: `path` is not `patch`, `time` not `timezone`.
    """
    shorter, longer = sorted(("".join(written), "".join(known)), key=len)
    letters = iter(longer)
    if not shorter or shorter in _SHORT_WORDS or shorter[0] != longer[0]:
        return False
    if not all(each in letters for each in shorter):
        return False
    is_prefix = longer.startswith(shorter) and len(shorter) <= _LONGEST_PREFIX
    return is_prefix or not set("aeiou").intersection(shorter[1:])


def _is_synonym(written: list[str], known: list[str]) -> bool:
    """Whether words of both mean the same, and both have the same other words: `phone_number` is no `count`."""
    for group in _SYNONYMS:
        one, other = ({*words} - group for words in (written, known))
        if group.isdisjoint(written) or group.isdisjoint(known):
            continue
        if one - _WITHOUT_MEANING == other - _WITHOUT_MEANING:
            return True
    return False
