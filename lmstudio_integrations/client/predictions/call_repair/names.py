"""Which of the known names of tools, arguments and values a model means by an unknown one. Pure.

A wrong guess runs the wrong tool, so names that only look alike do not count: `get_user` is not `set_user`.
"""

import re
from collections.abc import Callable, Iterable

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+|\d+")

_SHORTEST_WITH_TYPO = 5
"""The letters of a word in which one may be wrong. In shorter ones, one letter makes another word."""

_READING = (
    frozenset({"fetch", "get", "look", "lookup", "open", "read", "retrieve", "show", "view"}),
    frozenset({"find", "query", "search"}),
    frozenset({"list", "ls"}),
)
"""What tools do that change nothing, in words for each other. Such a tool may be meant by a shorter or longer name."""

_LIMITS = frozenset({"all", "any", "every", "no", "not", "un"})
_CHANGING = frozenset(
    {"add", "append", "cancel", "create", "delete", "edit", "insert", "move", "patch", "post", "put", "remove"}
    | {"rename", "replace", "run", "send", "set", "stop", "update", "upload", "write"}
)
"""Words that make another tool of one."""

_SYNONYMS = (
    frozenset({"q", "query", "queries", "search", "question", "keyword", "keywords", "term", "prompt"}),
    frozenset({"path", "file", "filename", "filepath"}),
    frozenset({"dir", "directory", "folder", "path"}),
    frozenset({"cmd", "command", "script"}),
    frozenset({"content", "contents", "text", "body"}),
    frozenset({"city", "location", "place", "town"}),
    frozenset({"url", "uri", "link", "href"}),
    frozenset({"limit", "count", "num", "number", "max", "results"}),
    frozenset({"id", "identifier", "key"}),
    frozenset({"message", "msg", "text"}),
)
"""Words that models write for each other in the names of arguments."""


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case: those of `filePath` are those of `file_path`."""
    return [word.lower() for word in _WORD.findall(name)]


def same_spelling(name: str, known: Iterable[str]) -> list[str]:
    """Return the names that differ only in case and in what separates their words."""
    spelled = "".join(words_of(name))
    return [each for each in known if spelled and "".join(words_of(each)) == spelled]


def resembling_tools(name: str, known: Iterable[str]) -> list[str]:
    """Return the tools that an unknown name may mean."""
    # A model may write a path to a tool, such as `functions.look` or `server/look`.
    bare = re.split(r"[./:]", name.strip())[-1]
    return _best(bare, list(known), (_is_misspelled, _is_same_tool))


def resembling_arguments(name: str, known: Iterable[str]) -> list[str]:
    """Return the arguments that an unknown name may mean."""
    return _best(name, list(known), (_is_misspelled, _shares_words, _is_shortened, _is_synonym))


def _best(name: str, known: list[str], tests: Iterable[Callable[[list[str], list[str]], bool]]) -> list[str]:
    """Return the names that pass the first of the tests which any passes."""
    found = same_spelling(name, known)
    written = words_of(name)
    for is_meant in tests:
        found = found or [each for each in known if written and is_meant(written, words_of(each))]
    return found


def _is_misspelled(written: list[str], known: list[str]) -> bool:
    """Whether each word is the same, perhaps in another place, or has a typo."""
    if sorted(written) == sorted(known):
        return True
    return len(written) == len(known) and all(map(_is_same_word, written, known))


def _is_same_word(written: str, known: str) -> bool:
    if written == known or {f"{written}s", f"{written}es"} & {known} or {f"{known}s", f"{known}es"} & {written}:
        return True
    return min(len(written), len(known)) >= _SHORTEST_WITH_TYPO and _has_one_typo(written, known)


def _has_one_typo(written: str, known: str) -> bool:
    """Whether two letters are swapped, or one is missing, superfluous or another one, but none of the first two."""
    shorter, longer = sorted((written, known), key=len)
    pairs = enumerate(zip(shorter, longer, strict=False))
    at = next((number for number, (one, other) in pairs if one != other), len(shorter))
    if len(longer) > len(shorter):
        return at > 1 and shorter[at:] == longer[at + 1 :]  # not "load" and "upload"
    swapped = written[:at] + written[at : at + 2][::-1] + written[at + 2 :]
    return (at > 0 and swapped == known) or (at > 1 and written[at + 1 :] == known[at + 1 :])  # nor "unload"


def _is_same_tool(written: list[str], known: list[str]) -> bool:
    """Whether the tool changes nothing, and one of the names is the other one with more words, or with another verb."""
    one, other = set(written), set(known)
    its_verbs, verbs = ([group for group in _READING if group & words] for words in (one, other))
    if not verbs or its_verbs not in ([], verbs) or not (its_verbs or written[0] in other):
        return False
    objects = [words.difference(*_READING) for words in (one, other)]
    one, other = objects if all(objects) else (one, other)
    return (one <= other or other <= one) and (one ^ other).isdisjoint(_LIMITS | _CHANGING)


def _shares_words(written: list[str], known: list[str]) -> bool:
    """Whether one of the names is the other one with more words."""
    one, other = set(written), set(known)
    return (one < other or other < one) and (one ^ other).isdisjoint(_LIMITS)


def _is_shortened(written: list[str], known: list[str]) -> bool:
    """Whether one of the names is the other one without some letters: `cmd` for `command`, `q` for `query`."""
    shorter, longer = sorted(("".join(written), "".join(known)), key=len)
    letters = iter(longer)
    return bool(shorter) and shorter[0] == longer[0] and all(letter in letters for letter in shorter)


def _is_synonym(written: list[str], known: list[str]) -> bool:
    """Whether words of both mean the same, and one of the names has no other words, or both have the same."""
    for group in _SYNONYMS:
        one, other = set(written) - group, set(known) - group
        if len(one) < len(set(written)) and len(other) < len(set(known)) and (one == other or not (one and other)):
            return True
    return False
