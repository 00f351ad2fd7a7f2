"""A small instance of a JSON schema, for structured output and required tool calls without a rule.

A value is made of what the schema says in the plainest way: the first alternative, the lowest bound, the required
members. `jsonschema` checks it; a schema that is not met so is an error that asks for a rule.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial, reduce
from itertools import chain, islice, repeat
from typing import Any, cast

from pydantic_core import SchemaError, SchemaValidator, core_schema

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator.engines.base import EngineError
from lmstudio_integrations.emulator.engines.scripted.error_codes import unsupported
from lmstudio_integrations.types._json_schemas import has_patterns_of_names, linear_keywords

MAX_SEARCHED = 1_000_000
"""Only the first characters of a text are searched, as even linear time is long for an endless text."""


class PatternError(Exception):
    """A pattern is invalid, or does not take linear time."""


class Pattern:
    """A compiled regular expression.

    Args:
        pattern: In the syntax of Rust's `regex`.

    Raises:
        PatternError: If it cannot be compiled.
    """

    def __init__(self, pattern: str) -> None:
        schema = core_schema.str_schema(pattern=_without_surrogates(pattern), regex_engine="rust-regex", strict=True)
        try:
            self._validator = SchemaValidator(schema)
        except SchemaError as error:
            raise PatternError(str(error).strip().rpartition("\n")[2].strip()) from error

    def is_found_in(self, text: str) -> bool:
        """Return whether the pattern matches somewhere in a text."""
        return self._validator.isinstance_python(_without_surrogates(text[:MAX_SEARCHED]))


def _without_surrogates(text: str) -> str:
    """Return the text with a question mark for each lone surrogate, which Rust does not accept."""
    return text.encode("utf-8", "replace").decode("utf-8")


Schema = dict[str, Any]

MAX_PARTS = 10_000
"""Schemas that are looked at, each as often as it is needed."""

MAX_DEPTH = 60
"""Schemas within each other, references included."""

MAX_LENGTH = 100_000
"""The longest string."""

_MAX_REASON_LENGTH = 500
_MAX_TEXTS = 10
"""Examples of a schema that are searched for its pattern."""

_FORMATS: Mapping[str, str] = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "duration": "P0D",
    "email": "a@example.com",
    "hostname": "a",
    "ipv4": "0.0.0.0",  # noqa: S104 - an example of an address, nothing is bound to it
    "ipv6": "::",
    "time": "00:00:00Z",
    "uri": "http://example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

_KEYWORD_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("properties", "required", "minProperties"), "object"),
    **dict.fromkeys(("items", "prefixItems", "minItems"), "array"),
    **dict.fromkeys(("pattern", "format", "minLength"), "string"),
}
"""The type that a keyword is about."""


_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


class NoInstanceError(Exception):
    """A schema allows nothing that is plain. Another alternative may do."""


def instance_of(schema: object, text: str = "") -> Any:
    """Return an instance of a schema.

    Args:
        schema: The schema.
        text: What its strings are, where that is valid.

    Raises:
        EngineError: If the schema has none that is plain enough, or is none itself.
    """
    try:
        value = _Builder(schema, text).build(schema)
        json.dumps(value)  # it may be nested too deeply
        problem = next(_validator(schema).iter_errors(value), None)
    except NoInstanceError as error:
        raise _unsupported(str(error)) from error
    except RecursionError as error:
        raise _unsupported(f"it is nested more than {MAX_DEPTH} levels deep") from error
    except Exception as error:  # a client may send anything as a schema
        raise _unsupported(f"it is not a valid one: {error}") from error
    if problem is not None:
        raise _unsupported(f"{value!r} is not: {problem.message}")
    return value


def _unsupported(reason: str) -> EngineError:
    return unsupported(f"this JSON schema: {reason[:_MAX_REASON_LENGTH]}")


def _validator(schema: object) -> Any:
    return _validator_class(has_patterns_of_names(schema))(schema)


@cache
def _validator_class(has_patterns: bool) -> Any:  # noqa: FBT001 - a cache takes it so
    """Return what checks values. Patterns are searched in linear time, which `jsonschema` does not promise."""
    from jsonschema import Draft202012Validator, ValidationError, validators  # noqa: PLC0415 - takes a while
    from referencing.jsonschema import EMPTY_REGISTRY  # noqa: PLC0415 - as above

    extend = cast("Any", validators).extend

    def pattern(_: object, pattern: str, value: object, __: object) -> Iterable[Any]:
        if isinstance(value, str) and not Pattern(pattern).is_found_in(value):
            yield ValidationError(f"the pattern {pattern!r} needs a 'default' or 'examples' that match it")

    # The default registry downloads what is referred to.
    keywords = {**linear_keywords(Draft202012Validator, has_patterns=has_patterns), "pattern": pattern}
    return partial(extend(Draft202012Validator, keywords), registry=EMPTY_REGISTRY)


_Path = tuple[object, ...]
"""The way from the root to a schema: for each schema around it the reference that was followed, or `None`."""


class _Builder:
    """Builds an instance of one schema, and counts the work.

    Args:
        root: The whole schema.
        text: What strings are, where that is valid.
    """

    def __init__(self, root: object, text: str) -> None:
        self._root = root
        self._text = text
        self._parts = MAX_PARTS

    def build(self, schema: object, path: _Path = ()) -> Any:
        """Return an instance of a part of the schema."""
        self._parts -= 1
        if self._parts < 0 or len(path) == MAX_DEPTH:
            raise NoInstanceError(f"it has more than {MAX_PARTS} parts or {MAX_DEPTH} levels, its references followed")
        inner = (*path, None)
        match _merged({}, schema):
            case {"$ref": str(reference), **rest}:
                if reference in path:
                    raise NoInstanceError(f"{reference!r} contains itself without end")
                return self.build(_merged(rest, self._target(reference)), (*path, reference))
            case {"allOf": [*schemas], **rest}:
                return self.build(reduce(_merged, schemas, rest), inner)
            case {"anyOf": [*schemas], **rest} | {"oneOf": [*schemas], **rest}:
                return self._first([_merged(rest, each) for each in schemas if is_object(each)], inner)
            case {"const": value} | {"enum": [value, *_]}:
                return value
            case {"type": [*kinds], **rest}:
                return self._first([{**rest, "type": kind} for kind in kinds], inner)
            case part:
                return self._of_type(part, inner)

    def _first(self, alternatives: Iterable[Schema], path: _Path) -> Any:
        """Return an instance of the first alternative that has one.

        Raises:
            NoInstanceError: If none has; the reason is that of the last.
        """
        problem = NoInstanceError("it allows nothing")
        for alternative in alternatives:
            try:
                return self.build(alternative, path)
            except NoInstanceError as error:
                problem = error
        raise problem

    def _of_type(self, part: Schema, path: _Path) -> Any:
        implied = next((kind for keyword, kind in _KEYWORD_TYPES.items() if keyword in part), "integer")
        schema = {"type": implied, **part}
        match schema["type"]:
            case "object":
                return self._object(schema, path)
            case "array":
                return self._array(schema, path)
            case "string":
                return _string(schema, self._text)
            case "integer" | "number":
                return _number(schema)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                raise NoInstanceError("it allows nothing")

    def _object(self, schema: Schema, path: _Path) -> dict[str, Any]:
        """Return the object with the fewest members."""
        properties: Mapping[str, Any] = schema.get("properties", {})
        required = [*dict.fromkeys(schema.get("required", ()))]
        least = min(schema.get("minProperties", 0), MAX_PARTS + 1)
        others = chain((name for name in properties if name not in required), (f"member{n}" for n in range(least)))
        names = [*required, *islice(others, max(least - len(required), 0))]
        other = schema.get("additionalProperties", True)
        return {name: self.build(properties.get(name, other), path) for name in names}

    def _array(self, schema: Schema, path: _Path) -> list[Any]:
        """Return the array with the fewest items."""
        least = min(schema.get("minItems", 0), MAX_PARTS + 1)
        items = chain(schema.get("prefixItems", ()), repeat(schema.get("items", True)))
        return [self.build(item, path) for item in islice(items, least)]

    def _target(self, reference: str) -> object:
        """Return the part of the schema that a reference names."""
        beginning, *names = reference.split("/")
        if beginning != "#":
            raise NoInstanceError(f"{reference!r} lies outside of it")
        target = self._root
        for name in names:
            if not is_object(target) or name not in target:
                raise NoInstanceError(f"{reference!r} points nowhere")
            target = target[name]
        return target


def _merged(first: Schema, second: object) -> Schema:
    """Return the keywords of both, those of the second first. What is not met so is found at the end."""
    if second is True:
        return first
    if not is_object(second):
        raise NoInstanceError("it allows nothing")
    return {**first, **second}


def _number(schema: Schema) -> int | float:
    """Return zero, a bound, a multiple next to one, or what lies between them."""
    bounds = [schema[name] for name in _BOUNDS if name in schema]
    step = schema.get("multipleOf", 1)
    beside = [(bound // step + steps) * step for bound in bounds for steps in (0, 1, -1)]
    numbers: list[int | float] = [0, *bounds, *beside, sum(bounds) / max(len(bounds), 1)]
    fits = _validator(schema).is_valid
    for number in (int(each) if each == int(each) else each for each in numbers):
        if fits(number):
            return number
    raise NoInstanceError(f"no number near its bounds {bounds} is allowed")


def _string(schema: Schema, text: str) -> str:
    """Return the text, an example of the format or the shortest string; where a pattern is not met so, an example."""
    least = schema.get("minLength", 0)
    if least > MAX_LENGTH:
        raise NoInstanceError(f"a string must be of {least} characters")
    shortest = _FORMATS.get(schema.get("format", ""), "a" * least)
    wished = [text] if text and "format" not in schema else []
    candidates = [*wished, shortest, schema.get("default"), *schema.get("examples", ())[:_MAX_TEXTS]]
    valid: Iterator[str] = filter(_validator(schema).is_valid, candidates)
    return next(valid, shortest)
