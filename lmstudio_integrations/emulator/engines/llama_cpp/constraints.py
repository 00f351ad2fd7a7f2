"""What constrains the output of llama.cpp: a JSON schema, a grammar, or a required tool call.

llama.cpp drops constraints that it cannot follow without an error, so unsupported ones are rejected or logged here.
"""

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

_TOKEN = re.compile(
    r"(?P<kept>[\w ]|\((?!\?)|\(\?:|[)|])"
    r"|(?P<named>\(\?P?<[A-Za-z_]\w*>)"
    r"|(?P<repeat>[*+?]|\{(?:\d+,?\d*|,\d+)\})\??"
    r"|(?P<set>\[\^?(?:\\.|(?!--)[^\]\\])+\]"
    r"|\\(?:[dwsDWS]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|\W)|[^\w ^$()|\[*+?\\])"
)

_BASIC_PLANE = "".join(map(chr, range(0x10000)))

_NEVER = r"[\"\\\x00-\x1F\u2028\u2029\uD800-\uDFFF]"
"""What JSON escapes, or only some dialects count as a line break. llama.cpp compares a pattern with the JSON text."""

_NOT_A_RANGE = re.compile(r"(\\[dwsDWS])(?=-)|(?<!\\)(?<!^)(?=[\[&~|])")
"""Where Python's dialect needs a backslash in a class, and others need none."""


def supported_pattern(pattern: str) -> str | None:
    """Return a pattern that llama.cpp supports, or `None` if there is none.

    It allows nothing that the given one does not, in the dialect of ECMAScript or of Python. Sets have neither what
    JSON must escape, nor characters beyond the basic plane.
    """
    if not (pattern.startswith("^") and pattern.endswith("$")) or _TOKEN.sub("", pattern[1:-1]):
        return None
    try:
        return f"^{_TOKEN.sub(_supported_token, pattern[1:-1])}$"
    except re.error:
        return None


def _supported_token(token: "re.Match[str]") -> str:
    if token["set"]:
        return _supported_set(token["set"])
    return "(" if token["named"] else token["kept"] or token["repeat"]  # llama.cpp reads a lazy `+?` as two


def _supported_set(written: str) -> str:
    """Return the class of the characters that a class, an escape or a dot stands for; Python's `re` knows which.

    Raises:
        re.error: If there are none, or it is invalid.
    """
    written = _NOT_A_RANGE.sub(r"\1\\", written) if written.startswith("[") else written
    runs = re.finditer(rf"(?:(?!{_NEVER})(?=(?a:{written})){written})+", _BASIC_PLANE)
    members = "".join(rf"\U{ord(run[0][0]):08X}-\U{ord(run[0][-1]):08X}" for run in runs)
    if not members:
        raise re.error("no character of it can be in JSON as it is")
    return f"[{members}]"


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
