"""What constrains the output of llama.cpp: a JSON schema, a grammar, or a required tool call.

llama.cpp drops constraints that it cannot follow without an error, so unsupported ones are rejected or logged here.
"""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.engines.base import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp.responses import unsupported
from lmstudio_integrations.types._json_schemas import call_schema, rewritten
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.functions import Tool

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


logger: logging.Logger = logging.getLogger(__name__)

Json = dict[str, Any]

MAX_SCHEMA_DEPTH = 120
"""JSON nesting (60 nested objects) that always becomes a grammar; llama.cpp drops much deeper schemas."""

MAX_OBJECTS = 4_000
"""Objects in the schemas of one request. llama.cpp recurses into them, and its stack overflows at 8,000."""

MAX_ALTERNATIVES = 1_000
"""Alternatives (values, branches and optional members) in the schemas of one request. Each one makes every token
slower: a token takes 0.2 s with a thousand, 4 s with five thousand."""

MAX_PATTERN_LENGTH = 1_000
MAX_GRAMMAR_LENGTH = 100_000
MAX_GRAMMAR_DEPTH = 200
"""Characters of a pattern and of a grammar, and nested parentheses; with many more, llama.cpp's stack overflows."""

MAX_TEXT_LENGTH = 256
MAX_ITEMS = 16
"""Bounds for arguments of tools that have none: without them a small model never ends."""


def output_constraint(config: LlmPredictionConfig, forced: Sequence[Tool]) -> Json:
    """Return what constrains the output: a call to one of the tools, if one is forced, else the settings.

    Raises:
        EngineError: If both are requested, or llama.cpp would ignore the constraint.
    """
    structured = structured_output(config)
    if forced and structured:
        raise EngineError("A required tool call cannot be combined with structured output")
    return forced_call(forced) if forced else structured


def structured_output(config: LlmPredictionConfig) -> Json:
    """Return the constraint of the settings, as `json_schema` or `grammar`; both work for chat and for raw text.

    Raises:
        EngineError: If llama.cpp would generate without the constraint, and without an error.
    """
    structured = config.structured or {}
    kind = structured.get("type", "none")
    if kind == "json":
        return {"json_schema": check_schema(structured.get("jsonSchema", {}))}
    if kind == "gbnf":
        return {"grammar": check_grammar(structured.get("gbnfGrammar"))}
    return {}


def check_schema(schema: object) -> Json:
    """Return the schema in the form that llama.cpp supports.

    Raises:
        EngineError: If it is not an object, or too large, or has bounds that contradict each other.
    """
    if not is_object(schema):
        raise unsupported("structured", f"a JSON schema must be an object, not {schema!r}")
    _check_size(schema, "structured")
    for part in _objects(schema):
        _check_bounds(part)
    complete: Json = to_supported_schema(schema)
    return complete


def check_tools(tools: Sequence[Tool]) -> None:
    """Check that the tools together are not too large.

    Raises:
        EngineError: If they are.
    """
    _check_size({"anyOf": [{"parameters": tool.function.parameters or {}} for tool in tools]}, "tools")


def _check_size(schema: object, feature: str) -> None:
    """Check that a schema is small enough to become a grammar in reasonable time.

    Raises:
        EngineError: If it is not.
    """
    for size, most, what in (
        (sum(1 for _ in _levels(schema)) - 1, MAX_SCHEMA_DEPTH, "nested more than {} levels deep"),
        (sum(1 for _ in _objects(schema)), MAX_OBJECTS, "with more than {} objects"),
        (sum(map(_alternatives, _objects(schema))), MAX_ALTERNATIVES, "with more than {} alternatives"),
    ):
        if size > most:
            raise unsupported(feature, f"JSON schemas {what.format(most)}")


def _alternatives(part: Json) -> int:
    """Return how many alternatives a schema has, without those of inner schemas."""
    properties, required = part.get("properties"), part.get("required")
    optional = _count(properties) - _count(required) if is_object(properties) else 0
    return max(optional, 0) + sum(_count(part.get(keyword)) for keyword in ("enum", "anyOf", "oneOf"))


def _count(value: object) -> int:
    return len(value) if is_list(value) or is_object(value) else 0


def check_grammar(grammar: object) -> str:
    """Return the grammar if llama.cpp supports it.

    Raises:
        EngineError: If it is empty, or not in GBNF.
    """
    if not isinstance(grammar, str) or not grammar.strip():
        raise EngineError("Invalid structured output setting: gbnfGrammar must be a grammar, and not empty")
    if grammar.lstrip().startswith("%llguidance"):
        raise unsupported("structured", "a grammar in Lark form; write it in GBNF")
    if len(grammar) > MAX_GRAMMAR_LENGTH or _parentheses(grammar) > MAX_GRAMMAR_DEPTH:
        raise unsupported(
            "structured",
            f"a grammar of more than {MAX_GRAMMAR_LENGTH} characters or {MAX_GRAMMAR_DEPTH} nested parentheses",
        )
    return grammar


def _parentheses(grammar: str) -> int:
    """Return how deeply parentheses are nested, except in texts and character classes."""
    level = deepest = 0
    for sign in _GRAMMAR_TOKEN.findall(grammar):
        level += {"(": 1, ")": -1}.get(sign, 0)
        deepest = max(deepest, level)
    return deepest


_GRAMMAR_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"?|\[(?:\\.|[^\]\\])*\]?|\#[^\n]*|[()]', re.DOTALL)


def forced_call(tools: Sequence[Tool]) -> Json:
    """Return the settings that force a call to one of the tools.

    They have no penalties: arguments repeat words of the question, which a repeat penalty makes the model avoid. With
    the usual penalty of 1.1, the bundled SmolLM2-135M got between three and ten of fifteen calls right, else all.
    """
    penalties = {"repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    return {"json_schema": _schema_of_call(tools), **penalties}


def _schema_of_call(tools: Sequence[Tool]) -> Json:
    """Return the schema of a call of one of the tools, as far as llama.cpp supports it."""
    functions = [{"name": tool.function.name, "parameters": tool.function.parameters} for tool in tools]
    schema: Json = add_bounds(to_supported_schema(call_schema(functions)))
    return schema


def add_bounds(schema: Any) -> Any:
    """Return a schema with bounded texts and lists, and closed objects."""
    return rewritten(schema, _add_bounds_to_part)


def _add_bounds_to_part(part: Json) -> Json:
    for key, value in _BOUNDS.get(str(part.get("type")), {}).items():
        if not _BOUNDED_BY.intersection(part):
            part.setdefault(key, value)
    return part


def to_supported_schema(schema: Any) -> Any:
    """Return a schema, or a list of them, with patterns that llama.cpp supports; what it ignores is logged."""
    ignored: list[str] = []
    result = rewritten(schema, lambda part: _to_supported_part(part, ignored))
    if ignored:
        logger.warning("llama.cpp ignores these parts of a schema: %s", ", ".join(ignored))
    return result


def _to_supported_part(part: Json, ignored: list[str]) -> Json:
    pattern = part.get("pattern")
    if isinstance(pattern, str):
        if len(pattern) > MAX_PATTERN_LENGTH:
            raise unsupported("structured", f"a pattern of more than {MAX_PATTERN_LENGTH} characters")
        part["pattern"] = supported_pattern(pattern)
        if part["pattern"] is None:
            del part["pattern"]
            ignored.append(f"the pattern {pattern!r}")
    kinds = part.get("type")
    of_numbers = "number" in (kinds if is_list(kinds) else [kinds])
    never = _IGNORED.union(_RANGES if of_numbers else (), _LENGTHS if "pattern" in part else ())
    ignored += sorted(key for key in never & part.keys() if part[key] is not False)
    return part


_BOUNDED_BY = {"const", "enum", "pattern", "format"}
_IGNORED = {
    *("multipleOf", "not", "if", "contains", "uniqueItems", "minProperties", "maxProperties"),
    *("patternProperties", "propertyNames", "dependentRequired"),
}
_RANGES = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
_LENGTHS = {"minLength", "maxLength"}
_BOUNDS: dict[str, Json] = {
    "string": {"maxLength": MAX_TEXT_LENGTH},
    "array": {"maxItems": MAX_ITEMS},
    "object": {"additionalProperties": False},
}


def _levels(schema: object) -> Iterator[Sequence[Any]]:
    """Yield the values of a schema level by level; without recursion, because input may be hostile."""
    level = [schema]
    while level:
        yield level
        level = [inner for outer in level for inner in _inside(outer)]


def _objects(schema: object) -> Iterator[Json]:
    return (value for level in _levels(schema) for value in level if is_object(value))


def _check_bounds(part: Json) -> None:
    """Reject bounds that contradict each other: llama.cpp would write white space forever."""
    for least, most in (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems")):
        low, high = part.get(least), part.get(most)
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            raise EngineError(f"Invalid structured output setting: {least} {low} is more than {most} {high}")


def _inside(value: object) -> Sequence[Any]:
    if is_object(value):
        return list(value.values())
    return value if is_list(value) else ()
