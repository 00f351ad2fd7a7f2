"""Patterns of a schema in the form that llama.cpp follows."""

import json
import re

import pytest

from lmstudio_integrations.emulator.engines.llama_cpp.constraints import supported_pattern


def as_grammar_reads_it(pattern: str) -> "re.Pattern[str]":
    """Return what llama.cpp makes of a pattern: it is held against the JSON text between the quotation marks."""
    return re.compile(rf"\A(?:{pattern[1:-1]})\Z")


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"^\d{3}-\w+$", ["123-a_Z"], ["12-a", "123-", "123-é"]),
        (r"^\s\S$", [" x"], ["xx", "  "]),
        (r"^\D\W$", ["a.", " -"], ["1.", "aa"]),
        (r"^[\w-\.]+@x$", ["a-b.c@x"], ["@x", "a,b@x"]),
        (r"^[^a\d]{2}$", ["bé"], ["ab", "1b"]),
        (r"^[\]x\u0041-\x43]+$", ["]xABC"], ["D", "a"]),
        (r"^.{2}$", ["a,"], ["a"]),
        (r"^(?:a|(?P<x>b)|(?<y>c))+?$", ["abc"], ["", "d"]),
        ("^[[a&~|]$", ["[", "&", "|"], ["b"]),
        ("^[ -~é]{2}$", ["#é"], ["#"]),
        (r"^\$\.\/\(\-x{$", ["$./(-x{"], ["$./(-x"]),
        (r"^\u0041\x42é$", ["ABé"], ["u0041"]),
        (r"^a{2,3}b{,1}c*d?$", ["aab", "aaaccd"], ["ab", "aabb"]),
        ("^$", [""], ["a"]),
    ],
)
def test_a_pattern_allows_in_json_what_it_allows_in_a_text(pattern: str, good: list[str], bad: list[str]) -> None:
    found = supported_pattern(pattern)
    assert found is not None
    reader = as_grammar_reads_it(found)
    assert all(reader.match(json.dumps(text, ensure_ascii=False)[1:-1]) for text in good)
    assert not any(reader.match(json.dumps(text, ensure_ascii=False)[1:-1]) for text in bad)


@pytest.mark.parametrize("pattern", [r"^.$", r"^\S$", r"^[^a]$", r'^["\\\n!]$'])
def test_what_json_must_escape_is_in_no_set(pattern: str) -> None:
    reader = as_grammar_reads_it(supported_pattern(pattern) or "")
    assert reader.match("!")
    assert not any(reader.match(character) for character in '"\\\n\x00')


@pytest.mark.parametrize(
    "pattern",
    [
        *("a", "^a", "a$", r"^a\$", "^(?=a)a$", "^(?!a)b$", r"^\bx$", r"^(a)\1$", r"^\p{L}$", "^(^a$)$", "^[]$"),
        *('^["]$', '^say "hi"$', r"^a\\b$", r"^a\n$", "^[+--]$"),
    ],
)
def test_an_unsupported_pattern_is_dropped(pattern: str) -> None:
    assert supported_pattern(pattern) is None
