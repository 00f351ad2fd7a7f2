"""Searches for the patterns of JSON schemas. Pure.

Others write both: an MCP server the pattern, a model the text. Python's `re` may never come to an end, so
it only gets what cannot take long.
"""

import logging
import math
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise

from pydantic_core import SchemaError, SchemaValidator, core_schema

from lmstudio_integrations._support.text import shown

logger: logging.Logger = logging.getLogger(__name__)

_TOKENS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\\\]])*\]|\(\?(?:[:=!]|<[=!]|P<\w+>)|.", re.DOTALL)
"""Escapes, classes of characters, beginnings of groups, and single characters."""

_OTHERWISE_IN_RUST = r"(?s)\\[<>]|&&|--|~~|.\["
"""What means something else in Rust's escapes and classes of characters: borders of words, and classes in classes."""

_REPEATED_OR_UNKNOWN = frozenset({")*", ")+", "){", "(?"})
"""Two tokens of a group that is repeated, or that may be of any other kind."""

_CHOICES = re.compile(r"[*+?{|]|\\\d")
"""Tokens at which a search has a choice, and references to groups, which take as long as the text is."""

_MOST_STEPS = 10_000_000
"""Steps that Python may take for a text, a fraction of a second."""


def is_found(pattern: str, text: str) -> bool | None:
    """Whether a pattern is found in a text; `None` if that might take too long to find out."""
    return _search_of(pattern)(text.encode("utf-8", "replace").decode())


@lru_cache(maxsize=128)
def _search_of(pattern: str) -> Callable[[str], bool | None]:
    """Return what looks for a pattern: in linear time if Rust knows it, else with a limit."""
    search = _in_rust(pattern) or _behind_look_aheads(pattern)
    if search is not None:
        return search
    compiled, tokens = re.compile(pattern), _TOKENS.findall(pattern)
    choices: float = sum(_CHOICES.fullmatch(token) is not None for token in tokens)
    if not pattern.startswith("^") or "|" in tokens:
        choices += 1  # the place where it begins
    if any(first + second in _REPEATED_OR_UNKNOWN for first, second in pairwise(tokens)):
        choices = math.inf  # they multiply

    def search_if_short(text: str) -> bool | None:
        # There are at most as many ways through a choice as places in the text.
        if choices * math.log(len(text) + 2) + math.log(len(tokens)) > math.log(_MOST_STEPS):
            _log_unchecked(pattern)
            return None
        return compiled.search(text) is not None

    return search_if_short


def _in_rust(pattern: str) -> Callable[[str], bool] | None:
    """Return what looks for a pattern in linear time; `None` if Rust does not know it, or takes it for another."""
    try:
        search = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True))
    except SchemaError:
        return None
    special = (token for token in _TOKENS.findall(pattern) if token[0] in "\\[")
    return None if any(re.search(_OTHERWISE_IN_RUST, token) for token in special) else search.isinstance_python


def _behind_look_aheads(pattern: str) -> Callable[[str], bool] | None:
    """Return what looks for a pattern that looks ahead at its beginning, as most of them do: for each part by itself.

    It is `None` for any other pattern.
    """
    outside = list(_outside_of_groups(pattern))
    if not pattern.startswith(("^(?=", "^(?!")) or any(sign == "|" for sign, _ in outside):
        return None
    parts: list[tuple[str, bool]] = []
    at = len("^")
    for sign, end in outside[1:]:
        if sign != ")" or not pattern.startswith(("(?=", "(?!"), at):
            break
        parts.append((f"^(?:{pattern[at + 3 : end - 1]})", pattern[at + 2] == "="))
        at = end
    rest = pattern[at:]
    if rest.startswith(("*", "+", "?", "{")):
        return None
    searches = [(_in_rust(part), is_wanted) for part, is_wanted in (*parts, (f"^{rest}", True))]
    known = [(search, is_wanted) for search, is_wanted in searches if search is not None]
    if len(known) < len(searches):
        return None
    return lambda text: all(search(text) is is_wanted for search, is_wanted in known)


def _outside_of_groups(pattern: str) -> Iterator[tuple[str, int]]:
    """Yield the tokens outside of groups, and of each group the last one, with their ends."""
    depth = 0
    for token in _TOKENS.finditer(pattern):
        sign = token.group()
        depth += sign.startswith("(") - (sign == ")")
        if not depth:
            yield sign, token.end()


@lru_cache(maxsize=128)
def _log_unchecked(pattern: str) -> None:
    """Log once that a pattern is not checked."""
    logger.warning("the pattern %s is not checked: it might take too long to find out if it is met", shown(pattern))
