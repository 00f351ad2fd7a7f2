"""The rules by which this package recovers what models write wrong, and the outputs that ask for each.

Which do is measured, and not declared: without the rule, all outputs are read again. Those ask for it from which
something else is read then.
"""

import ast
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from lmstudio_integrations.client.predictions.calls_in_text import (
    call_arguments,
    call_parser,
    call_repair,
    formats,
    lenient_json,
    parser,
    repair_calls,
)
from lmstudio_integrations.client.predictions.calls_in_text.formats import Tokens
from lmstudio_integrations.client.predictions.calls_in_text.lenient_json import NoCallError, TextCursor
from lmstudio_integrations.types import structured
from tools.evidence.outputs import all_outputs, read_output

FAMILIES = "Families of markers"
TEXTS = "Calls in texts"
REPAIRS = "Calls that do not fit"

ABOUT = {
    FAMILIES: "How families mark calls that a server leaves in the text. Models use each other's markers.",
    TEXTS: "Where such calls may be, and which mistakes of their writers are mended.",
    REPAIRS: "What `repair_tool_calls` mends without asking the model.",
}
"""What the page says of each part."""

_NEVER = re.compile(r"(?!)")

Change = tuple[Any, str, Any]
"""A module or a class, the name of something in it, and what replaces that."""


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        part: What it is a part of.
        name: What it recovers.
        changes: What takes it out.
        clues: Of which each output that asks for it has one.
    """

    part: str
    name: str
    changes: tuple[Change, ...]
    clues: Collection[str] = ("",)

    def asked_for_by(self) -> list[str]:
        """Return the ids of the outputs from which something is read, and something else without the rule."""
        repairs = self.part == REPAIRS
        known = _read_by_all(repairs=repairs)
        plain = _read_by_all(repairs=False) if repairs else {}
        rows = [row for row in all_outputs() if known[row.id] and known[row.id] != plain.get(row.id)]
        rows = [row for row in rows if any(clue in row.payload["text"] for clue in self.clues)]
        with ExitStack() as stack:
            for owner, name, value in self.changes:
                stack.enter_context(patch.object(owner, name, value))
            return [row.id for row in rows if read_output(row, repairs=repairs) != known[row.id]]


@cache
def _read_by_all(*, repairs: bool) -> dict[str, Any]:
    return {row.id: read_output(row, repairs=repairs) for row in all_outputs()}


def all_rules() -> Iterator[Rule]:
    """Yield the rules, part by part."""
    for part in (_families, _places, _names, _members, _tags, _values, _repairs):
        yield from part()


# Families -------------------------------------------------------------------------------------------------------------


def _families() -> Iterator[Rule]:
    for known in formats.FORMATS:
        fresh = _formats_without(known.name)
        changes = [
            (user, name, getattr(fresh, name))
            for user in (parser, call_parser, call_repair, repair_calls)
            for name in ("MARKERS", "BETWEEN", "ENDS", "format_at")
            if hasattr(user, name)
        ]
        yield Rule(FAMILIES, known.name, tuple(changes), (*known.begins, *known.ends, *known.bodies))


def _formats_without(name: str) -> ModuleType:
    """Return the module of the formats as it would be without a row of its table."""
    tree = ast.parse(Path(str(formats.__file__)).read_text(encoding="utf-8"))
    (at,) = [
        number
        for number, each in enumerate(tree.body)
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name) and each.targets[0].id == "FORMATS"
    ]
    tree.body[at + 1 : at + 1] = ast.parse(f"FORMATS = tuple(each for each in FORMATS if each.name != {name!r})").body
    module = ModuleType(formats.__name__)
    exec(compile(tree, str(formats.__file__), "exec"), module.__dict__)
    return module


# Texts ----------------------------------------------------------------------------------------------------------------


def _in_texts(name: str, owner: Any, attribute: str, value: Any, *clues: str) -> Rule:
    return Rule(TEXTS, name, ((owner, attribute, value),), clues or ("",))


def _places() -> Iterator[Rule]:
    """Yield the rules about where calls may be."""
    yield _in_texts("calls without a marker", parser.StreamingToolParser, "_begin", _only_marked)
    yield _in_texts("calls behind a sentence, in its line", parser, "_BEFORE_CALLS", re.compile(r"\n\s*\Z"))
    yield _in_texts("calls behind a thought in the text", parser.StreamingToolParser, "_ends_reasoning", _no)
    yield _in_texts("calls behind a marker that is mentioned", parser.Surroundings, "are_mentioning", _no)
    yield _in_texts("calls behind the end of the turn", parser.StreamingToolParser, "_follows_turn", _no)
    for language in sorted(parser._CALL_LANGUAGES):
        others = parser._CALL_LANGUAGES - {language}
        what = f"in `{language}`" if language else "without a language"
        yield _in_texts(f"code blocks {what}", parser, "_CALL_LANGUAGES", others, f"```{language}")
    yield _in_texts("code blocks behind a marker or a name", call_parser, "_FENCE", _NEVER, "```")
    yield from _tokens("beside calls", "BETWEEN", formats._AFTER_RESPONSE, _BETWEEN_CALLS)
    yield _in_texts("superfluous brackets behind a call", call_parser, "_BRACKETS", _NEVER)
    yield _in_texts("superfluous tags behind a call", call_parser, "_STRAY_END", _NEVER, "</")
    yield _in_texts("a missing bracket behind a call", call_parser.CallParser, "_lacks_bracket", _no)


def _names() -> Iterator[Rule]:
    """Yield the rules about the name of a tool, and what is beside it."""
    for namespace in formats._NAMESPACES:
        others = tuple(each for each in formats._NAMESPACES if each != namespace)
        yield _in_texts(f"`{namespace}` before a name", formats, "_NAMESPACES", others, namespace)
    yield _in_texts("other words with a colon before a name", call_parser.CallParser, "_skip_namespaces", _no, ":")
    yield _in_texts(f"`{formats.BARE}` without a marker", formats, "BARE", "\0", formats.BARE)
    yield _in_texts("other characters for `_` in a name", formats, "_UNSAFE", _NEVER)
    for wrapper in sorted(formats.WRAPPERS):
        fewer = formats.WRAPPERS - {wrapper}
        changes = ((formats, "WRAPPERS", fewer), (call_parser, "WRAPPERS", fewer))
        yield Rule(TEXTS, f"`{wrapper}` before a call", changes, (wrapper,))
    yield from _tokens("before arguments", "BEFORE_ARGUMENTS", formats._BEFORE_ARGUMENTS, formats._BEFORE_ARGUMENTS)
    yield _in_texts("words before arguments", call_parser, "_WORD", _NEVER)
    yield _in_texts("the number of a call behind a name", call_parser, "_NUMBER_OF_CALL", _NEVER)


def _members() -> Iterator[Rule]:
    """Yield the rules about the members of a call in JSON."""
    for table, what in (("NAMES", "the name"), ("_ARGUMENTS", "the arguments"), ("_ENVELOPES", "the call")):
        known: frozenset[str] = getattr(call_parser, table)
        for key in sorted(known - {"name", "arguments"}):
            yield _in_texts(f"`{key}` for {what}", call_parser, table, known - {key}, key)
    for key in sorted(call_parser._BESIDE):
        yield _in_texts(f"`{key}` beside a call", call_parser, "_BESIDE", call_parser._BESIDE - {key}, key)
    yield _in_texts("arguments as a string", call_parser, "_arguments", _unless_text(call_parser._arguments))


def _tags() -> Iterator[Rule]:
    """Yield the rules about arguments between tags."""
    yield _in_texts("numbers and lists as texts", formats.OfferedTool, "fitting", _as_it_is)
    others = tuple((user, "with_usual_tags", _text_as_it_is) for user in (parser, call_repair))
    yield Rule(TEXTS, "tags with the separators of MiniMax M3 or Kimi K3", others)
    yield _in_texts("lists and objects of elements", formats, "elements_of", _nothing, "</")
    yield _in_texts("the type of a value in its tag", call_parser, "_TYPE", _NEVER)
    yield _in_texts("values that may be a text or something else", formats.OfferedTool, "value_of", _its_text)
    yield _in_texts("the name of the tool beside the arguments", call_parser.CallParser, "_unwrapped", _as_they_are)
    yield _in_texts("the marker of a call for that of a key", call_parser.CallParser, "_skips_wrong_key", _no)
    yield _in_texts("a parameter without its end", call_parser, "_UNENDED_PARAMETER", _NEVER, "<param")
    yield _in_texts("a parameter that the next one ends", call_parser, "_parameter_of", _never_matching, "<param")
    yield _in_texts("a value that the next key ends", call_parser, "_NEXT_KEY", _NEVER, "<arg_")
    yield _in_texts("a key without its beginning", call_parser.CallParser, "_tool_before_key", _no_call, "</arg_key>")
    yield _in_texts("`CDATA` in a parameter", call_parser, "_CDATA", _NEVER, "CDATA")


def _values() -> Iterator[Rule]:
    """Yield the rules about JSON, which models write with mistakes."""
    for quote, end in lenient_json._QUOTES.items():
        if quote != '"':
            others = _except(lenient_json._QUOTES, quote)
            yield _in_texts(f"strings in {quote}…{end}", lenient_json, "_QUOTES", others, quote)
    for quote in lenient_json._DELIMITERS:
        others = _except(lenient_json._DELIMITERS, quote)
        yield _in_texts(f"strings in `{quote}`", lenient_json, "_DELIMITERS", others, quote)
    loosely = (call_parser.CallParser, "_loosely", _strictly)
    yield _in_texts("strings without quotes, or with the same quotes in them", *loosely)
    literals = _except(lenient_json._LITERALS, "True", "False", "None")
    yield _in_texts("Python's literals", lenient_json, "_LITERALS", literals, "True", "False", "None")
    yield _in_texts("keys without quotes", lenient_json, "_KEY", _NEVER)
    yield _in_texts("numbers that JSON does not have", lenient_json, "_NUMBER", lenient_json._JSON_NUMBER)
    yield _in_texts("`▁` for a blank", lenient_json, "_SPACE", re.compile(r"\s*"), "▁")
    known_only = _known_escape(lenient_json._escaped)
    yield _in_texts("backslashes that are no escape", lenient_json, "_escaped", known_only, "\\")
    in_one_line = _in_one_line(lenient_json._read_escaped)
    yield _in_texts("line breaks in strings", lenient_json, "_read_escaped", in_one_line, "\n")
    yield _in_texts("superfluous commas", TextCursor, "is_closed", _without_superfluous_commas, ",")
    yield _in_texts("missing commas", TextCursor, "is_closed", _with_all_commas)
    members = _single_braces(lenient_json.read_members)
    doubled = tuple((owner, "read_members", members) for owner in (lenient_json, call_parser))
    yield Rule(TEXTS, "doubled braces", doubled, ("{{",))
    yield _in_texts("structured output behind a thought", structured, "_end_of_thoughts", _nowhere)
    yield _in_texts("structured output in a code block", structured, "_BLOCK", _NEVER, "```")
    yield _in_texts("LM Studio's own tags in structured output", structured, "_MARKER", _NEVER, "__LM_STUDIO")


_BETWEEN_CALLS = (
    *(each for known in formats.FORMATS for each in (*known.begins, *known.ends)),
    *formats._AFTER_RESPONSE,
)


def _tokens(where: str, name: str, tokens: Iterable[str], table: Iterable[str]) -> Iterator[Rule]:
    """Yield a rule for each of some tokens of a table of the formats."""
    for token in tokens:
        fewer = Tokens([each for each in table if each != token])
        yield _in_texts(f"`{token}` {where}", call_parser, name, fewer, token)


def _except(table: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in keys}


def _no(*_: object) -> bool:
    return False


def _no_call(*_: object) -> Any:
    raise NoCallError


def _as_it_is(_: object, arguments: Any) -> Any:
    return arguments


def _its_text(_: object, _name: str, text: str, **_more: object) -> str:
    return text


def _as_they_are(_: object, _tool: object, arguments: Any) -> Any:
    return arguments


def _text_as_it_is(text: str, **_: object) -> str:
    return text


def _strictly(_: object, _tool: object, read: Callable[[], Any], _form: object) -> Any:
    return read()


def _nowhere(_: object) -> int:
    return 0


def _never_matching(_: object) -> "re.Pattern[str]":
    return _NEVER


_begin = parser.StreamingToolParser._begin


def _only_marked(self: parser.StreamingToolParser, at: int, text: str, *, marked_only: bool) -> None:
    del marked_only
    _begin(self, at, text, marked_only=True)


def _unless_text(read: Callable[[object], Any]) -> Callable[[object], Any]:
    def read_object(value: object) -> Any:
        return _no_call() if isinstance(value, str) and value.strip() else read(value)

    return read_object


def _known_escape(read: Callable[[str, int], tuple[str, int]]) -> Callable[[str, int], tuple[str, int]]:
    def escaped(whole: str, at: int) -> tuple[str, int]:
        part, end = read(whole, at)
        return _no_call() if part == f"\\{whole[at]}" else (part, end)

    return escaped


def _in_one_line(read: Callable[[TextCursor, str], str]) -> Callable[[TextCursor, str], str]:
    def read_escaped(text: TextCursor, end: str) -> str:
        begin, value = text.at, read(text, end)
        return _no_call() if "\n" in text.text[begin : text.at] else value

    return read_escaped


def _single_braces(read: Callable[[TextCursor], Iterator[str]]) -> Callable[[TextCursor], Iterator[str]]:
    def read_members(text: TextCursor) -> Iterator[str]:
        return _no_call() if text.text.startswith("{{", text.at) else read(text)

    return read_members


def _without_superfluous_commas(self: TextCursor, bracket: str) -> bool:
    begin, is_closed = self.at, _is_closed(self, bracket)
    commas = self.text[begin : self.at].count(",")
    return _no_call() if commas > 1 or (commas and (is_closed or _is_first(self.text[:begin]))) else is_closed


def _with_all_commas(self: TextCursor, bracket: str) -> bool:
    begin, is_closed = self.at, _is_closed(self, bracket)
    has_comma = "," in self.text[begin : self.at]
    return _no_call() if not (has_comma or is_closed or _is_first(self.text[:begin])) else is_closed


_is_closed = TextCursor.is_closed


def _is_first(before: str) -> bool:
    return before.rstrip().endswith(("{", "[", "("))


# Repairs --------------------------------------------------------------------------------------------------------------


def _repairs() -> Iterator[Rule]:
    def rule(name: str, attribute: str, value: Any, owner: Any = call_arguments) -> Rule:
        return Rule(REPAIRS, name, ((owner, attribute, value),))

    yield rule("names of tools in another spelling", "resembling_tools", _nothing, call_repair)
    yield rule("names of tools in the plural", "_is_in_plural", _no)
    yield rule("missing and superfluous brackets", "_balance", str, call_repair)
    yield rule("some of several calls", "split_calls", _nothing, repair_calls)
    for wrapper in sorted(call_arguments._WRAPPERS):
        yield rule(f"arguments in `{wrapper}`", "_WRAPPERS", call_arguments._WRAPPERS - {wrapper})
    yield rule("names and listed values in another spelling", "same_spelling", _nothing)
    yield rule("names of arguments with a typo, or in another order", "_is_misspelled", _no)
    yield rule("names of arguments with more or fewer words", "_shares_words", _no)
    yield rule("names of arguments that are shortened", "_is_shortened", _no)
    for group in call_arguments._SYNONYMS:
        words = ", ".join(f"`{word}`" for word in sorted(group))
        others = tuple(each for each in call_arguments._SYNONYMS if each is not group)
        yield rule(f"names of arguments that mean the same: {words}", "_SYNONYMS", others)
    yield rule("values of another type", "_read_again", _its_value)
    yield rule("values within strings", "_parse", _nothing)
    for nothing in call_arguments._NOTHING:
        fewer = tuple(each for each in call_arguments._NOTHING if each is not nothing)
        yield rule(f"`{json.dumps(nothing)}` for an argument that is not set", "_NOTHING", fewer)


def _its_value(_: object, misfit: Any) -> Any:
    return misfit.value


def _nothing(*_: object) -> list[Any]:
    return []
