"""Mends names and arguments that do not fit a tool, where exactly one reading of them does. Pure.

A value that fits is not touched, and none is invented: what is missing stays missing. A wrong guess runs the wrong
tool, so names that only look alike do not count: `get_user` is not `set_user`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lmstudio_integrations._support.typeguards import is_list, is_number, is_object
from lmstudio_integrations.client.predictions.calls_in_text.formats import OfferedTool, values_of
from lmstudio_integrations.client.predictions.calls_in_text.lenient_json import WrittenNumber, plain
from lmstudio_integrations.types._json_schemas import Misfit

_MOST_PASSES = 8
"""How often it is looked for misfits: a mend may show one that was hidden."""

_MOST_UNKNOWN = 16
"""Of how many unknown names it is looked for the meaning: that takes a while for each."""

_WRAPPERS = frozenset({"args", "arguments", "data", "input", "kwargs", "parameters", "params", "properties"})
_BESIDE = frozenset({"function", "name", "tool", "type"})
_TYPES = ("function", "tool_call", "tool_use")
"""What models put around arguments, and beside them."""

_NOTHING = (None, "", "null", "None", "none", "undefined")
"""What models write for an argument that they do not set."""

_ABOUT_NAMES = frozenset({"required", "additionalProperties"})

_SEPARATORS = (",", ";", "\n", "|", " and ", "&")

_OMITTED = object()


def mend(tool: OfferedTool, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Return arguments that fit; `None` if there is no reading of them that does, or more than one.

    Raises:
        NoCallError: If it cannot be known what fits, because the schema cannot be used.
    """
    current = _unwrap(tool, arguments)
    for _ in range(_MOST_PASSES):
        misfits = tool.misfits(current)
        if not misfits:
            return current if current is arguments else plain(current)
        before, empty = current, list[Misfit]()
        for misfit in sorted(misfits, key=lambda each: each.keyword in _ABOUT_NAMES):
            if _at(current, misfit.path) is not misfit.value:
                continue  # something in it was mended, so it is looked at again
            change = _rename(misfit) if misfit.keyword in _ABOUT_NAMES else _read_again(tool, misfit)
            if change is not misfit.value:
                current = _replace(current, misfit.path, change)
            elif misfit.value in _NOTHING and misfit.is_named:
                empty.append(misfit)
        current = _without(tool, current, empty)
        if current is before:
            return None
    return None


def _without(tool: OfferedTool, arguments: dict[str, Any], empty: Iterable[Misfit]) -> dict[str, Any]:
    """Return arguments without the values that stand for nothing, if all of these may be missing.

    It is looked for misfits once for all of them, because that takes as long as the arguments are.
    """
    unset = [each for each in empty if _at(arguments, each.path) is each.value]
    without = arguments
    for path in dict.fromkeys(each.path for each in unset):
        without = _replace(without, path, _OMITTED)
    is_needless = unset and len(tool.misfits(without)) + len(unset) <= len(tool.misfits(arguments))
    return without if is_needless else arguments


def _unwrap(tool: OfferedTool, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments in the only argument that the tool does not have, if they are there."""
    unknown = arguments.keys() - tool.parameters.keys()
    wrappers = unknown & _WRAPPERS
    if len(wrappers) != 1 or not unknown <= _WRAPPERS | _BESIDE or not tool.misfits(arguments):
        return arguments
    if any(arguments[name] not in (tool.name, *_TYPES) for name in unknown - wrappers):  # what the tool may need
        return arguments
    inner = arguments[wrappers.pop()]
    objects = [each for each in (inner, *_parse(inner)) if is_object(each)]
    known = {name: value for name, value in arguments.items() if name not in unknown}
    if not objects or any(name in objects[0] and objects[0][name] != value for name, value in known.items()):
        return arguments
    return {**known, **objects[0]}


def _rename(misfit: Misfit) -> Any:
    """Return an object with the name of one member that a known one was meant by, if it is clear which."""
    members, known = misfit.value, misfit.schema.get("properties")
    if not (is_object(members) and is_object(known)):
        return members
    unset = [name for name in known if name not in members]
    missing = [name for name in unset if name in misfit.schema.get("required", ())]
    unknown = [name for name in members if name not in known]
    if len(unknown) > _MOST_UNKNOWN:
        return members
    wanted = unset if misfit.keyword == "additionalProperties" else missing
    meant = {name: resembling_arguments(name, unset) for name in unknown}
    for name, names in meant.items():
        is_only_one = all(each not in others for each in names for other, others in meant.items() if other != name)
        if len(names) == 1 and names[0] in wanted and is_only_one:
            return {names[0] if key == name else key: value for key, value in members.items()}
    return members


def _read_again(tool: OfferedTool, misfit: Misfit) -> Any:
    """Return the only reading of a value that fits in its place; the value itself if there is none."""
    value, schema = misfit.value, misfit.schema
    for readings in _readings(value, schema):
        fitting: dict[str, Any] = {json.dumps(each): each for each in readings if tool.accepts(each, schema)}
        if fitting:
            (reading, *others) = fitting.values()
            is_whole = isinstance(reading, float) and reading.is_integer() and not tool.accepts(reading + 0.5, schema)
            return value if others else int(reading) if is_whole else reading
    if value in _NOTHING:
        return value
    # What is in the value may be mended afterwards.
    type_, parsed = schema.get("type"), _parse(value)
    if type_ == "object":
        return next(filter(is_object, parsed), value)
    if type_ == "array":
        return [value] if is_object(value) else next(filter(is_list, parsed), value)
    return value


def _readings(value: Any, schema: Mapping[str, Any]) -> Iterable[Sequence[Any]]:
    """Yield the readings of a value, better ones first."""
    text = _text_of(value)
    yield same_spelling(text, _names(schema))
    is_written = isinstance(value, WrittenNumber)
    yield [*_parse(value), *([text] if text and (is_written or is_number(value)) else ())]
    items: list[Any] = value if is_list(value) and len(value) == 1 else []
    yield items
    yield [each for item in items if not is_list(item) for readings in _readings(item, schema) for each in readings]
    if not (
        is_list(value) or value in _NOTHING or (isinstance(value, str) and any(each in value for each in _SEPARATORS))
    ):
        yield [[value]]
        yield [[each] for each in _parse(value)]


def _names(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts that a schema lists as values."""
    yield from (each for each in (*schema.get("enum", ()), schema.get("const")) if isinstance(each, str))
    for keyword in ("anyOf", "oneOf", "allOf"):
        parts: list[Any] = schema.get(keyword, [])
        for part in filter(is_object, parts):
            yield from _names(part)


def _text_of(value: Any) -> str:
    """Return what the model wrote for a value; nothing where that is not known, as `3.1` may have been `3.10`."""
    if isinstance(value, str | WrittenNumber):
        return str(value)
    return json.dumps(value) if isinstance(value, int) else ""


def _parse(value: Any) -> list[Any]:
    """Return what a string stands for: JSON may be encoded twice."""
    if not isinstance(value, str):
        return []
    values = values_of(value)
    return [value.strip(), *values, *(each for inner in values for each in _parse(inner))]


def _at(whole: Any, path: Sequence[str | int]) -> Any:
    """Return the value at a place; nothing if that was renamed."""
    try:
        for key in path:
            whole = whole[key]
    except KeyError:
        return _OMITTED
    return whole


def _replace(whole: Any, path: Sequence[str | int], value: Any) -> Any:
    """Return a copy of arguments with another value at a place, or without it."""
    if not path:
        return value
    first, changed = path[0], whole.copy()
    changed[first] = _replace(whole[first], path[1:], value)
    if changed[first] is _OMITTED:
        del changed[first]
    return changed


_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+|\d+")

_BETWEEN_WORDS = re.compile(r"(?<=[^\W\d_])[\s_./:-]+|[\s_./:-]+(?=[^\W\d_])|[°'\"`()]")
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
    return _BETWEEN_WORDS.sub("", name.strip()).lower()


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
