"""What constrains the output of llama.cpp: a JSON schema, a grammar, or a required tool call.

llama.cpp drops constraints that it cannot follow without an error, so unsupported ones are rejected or logged here.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.engines.base import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp.responses import unsupported
from lmstudio_integrations.types._call_schemas import call_schema
from lmstudio_integrations.types._json_schemas import rewritten
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.functions import Tool

logger: logging.Logger = logging.getLogger(__name__)

Json = dict[str, Any]

MAX_SCHEMA_DEPTH = 120
"""JSON nesting (60 nested objects) that always becomes a grammar; llama.cpp drops much deeper schemas."""

MAX_OBJECTS = 4_000
"""Objects in the schemas of one request. llama.cpp recurses into them, and its stack overflows at 8,000."""

MAX_ALTERNATIVES = 1_000
"""Alternatives (values, branches and optional members) in the schemas of one request. Each one makes every token
slower: a token takes 0.2 s with a thousand, 4 s with five thousand."""

MAX_GRAMMAR_LENGTH = 100_000
MAX_GRAMMAR_DEPTH = 200
"""Characters of a grammar, and nested parentheses; with many more, llama.cpp's stack overflows."""

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
    """Return the schema if llama.cpp supports it.

    Raises:
        EngineError: If it is not an object, or too large, or has a keyword that llama.cpp cannot follow.
    """
    if not is_object(schema):
        raise unsupported("structured", f"a JSON schema must be an object, not {schema!r}")
    _check_size(schema, "structured")
    _check_keywords(schema)
    return schema


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

    llama.cpp's own `tool_choice` forces none: with "required" and with a name, the bundled model answered in words,
    under its own template and under those of five families (xllamacpp 2026.10.11549).

    They have no penalties: arguments repeat words of the question, which a repeat penalty makes the model avoid. With
    the usual penalty of 1.1, the bundled SmolLM2-135M got between three and ten of fifteen calls right, else all.
    """
    penalties = {"repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    schema = call_schema([{"name": tool.function.name, "parameters": tool.function.parameters} for tool in tools])
    _check_keywords(schema)
    return {"json_schema": rewritten(schema, _add_bounds), **penalties}


def _add_bounds(part: Json) -> Json:
    """Bound the texts and lists of a schema, and close its objects."""
    for key, value in _BOUNDS.get(str(part.get("type")), {}).items():
        if not _BOUNDED_BY.intersection(part):
            part.setdefault(key, value)
    return part


def _check_keywords(schema: Json) -> None:
    """Check that llama.cpp can follow a schema; keywords that it ignores are logged.

    Raises:
        EngineError: If it cannot.
    """
    ignored: list[str] = []

    def check(part: Json) -> Json:
        _check_part(part)
        kinds = part.get("type")
        of_numbers = "number" in (kinds if is_list(kinds) else [kinds])
        never = _IGNORED.union(_RANGES if of_numbers else ())
        ignored.extend(sorted(key for key in never & part.keys() if part[key] is not False))
        return part

    rewritten(schema, check)
    if ignored:
        _log_ignored(", ".join(ignored))


@lru_cache(maxsize=64)
def _log_ignored(names: str) -> None:
    """Log it once for these names, because each call of a program brings the same schema."""
    logger.warning("llama.cpp ignores these parts of a schema: %s", names)


def _check_part(part: Json) -> None:
    # llama.cpp compares a pattern with the JSON text, knows few of them, and makes others mean something else.
    if isinstance(part.get("pattern"), str):
        raise unsupported(
            "structured",
            f"the keyword 'pattern' of a JSON schema, such as {shown(part['pattern'])}",
            "Leave 'pattern' out and check the text in the program, or list the texts in 'enum'.",
        )
    # Between bounds that contradict each other, it would write white space forever.
    for least, most in (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems")):
        low, high = part.get(least), part.get(most)
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            raise EngineError(f"Invalid JSON schema: {least} {low} is more than {most} {high}")


_BOUNDED_BY = {"const", "enum", "format"}
_IGNORED = {
    *("multipleOf", "not", "if", "contains", "uniqueItems", "minProperties", "maxProperties"),
    *("patternProperties", "propertyNames", "dependentRequired"),
}
_RANGES = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
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


def _inside(value: object) -> Sequence[Any]:
    if is_object(value):
        return list(value.values())
    return value if is_list(value) else ()
