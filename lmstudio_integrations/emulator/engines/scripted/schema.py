"""The shortest instance of a JSON schema, for structured output and required tool calls without a rule.

Supports what pydantic writes: references, unions, values, bounds, arrays and objects, and a pattern that an example of
the schema matches. A schema that says more raises an error that names the keyword. The work for one schema is bounded,
whoever wrote it.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any

from pydantic_core import SchemaError, SchemaValidator, core_schema

from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.engines.scripted.error_codes import unsupported

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
SchemaInstance = tuple[Any, int]
"""A value, and the length of its JSON text. The length is computed, as items that repeat share one value."""

_Path = tuple[object, ...]
"""The way from the root to a schema: for each schema around it the reference that was followed, or `None`."""

MAX_PARTS = 100_000
"""Schemas and their keywords that are looked at; one that is referred to twice counts twice."""

MAX_CHARACTERS = 5_000_000
"""The longest JSON text of an instance."""

MAX_DEPTH = 60
"""Schemas within each other, references included."""

MAX_LENGTH = 100_000
"""The longest string and array, and the most members of an object."""

MAX_PATTERN_LENGTH = 1_000

MAX_EXAMPLES = 10
MAX_MATCHED = 100
"""The texts that are searched for a pattern: even a search in linear time takes long for a large pattern."""

_MAX_REASON_LENGTH = 500
_UNSUPPORTED = ("not", "if", "contains", "dependentRequired", "dependentSchemas", "$dynamicRef", "$recursiveRef")
_ANNOTATIONS = frozenset({"title", "description", "default", "examples", "deprecated", "$defs", "definitions"})
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


class NoInstanceError(Exception):
    """A schema allows nothing, or uses a keyword that is not supported. Another alternative may do."""


class SchemaLimitError(Exception):
    """A schema exceeds a limit; no other alternative is tried."""


def shortest_instance(schema: object) -> Any:
    """Return the shortest instance of a schema.

    Raises:
        EngineError: If the schema has none, or is not supported.
    """
    try:
        return _Builder(schema).build(schema)[0]
    except (NoInstanceError, SchemaLimitError) as error:
        raise unsupported(f"this JSON schema: {str(error)[:_MAX_REASON_LENGTH]}") from error
    except RecursionError as error:
        raise unsupported(f"this JSON schema: it is nested more than {MAX_DEPTH} levels deep") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        # A client may send anything as a schema.
        raise unsupported(f"this JSON schema, which is not a valid one: {str(error)[:_MAX_REASON_LENGTH]}") from error


@dataclass(slots=True)
class _Builder:
    """Builds instances of one schema, and counts the work."""

    root: object
    parts: int = MAX_PARTS

    def build(self, schema: object, path: _Path = ()) -> SchemaInstance:
        """Return the shortest instance of a part of the schema."""
        if len(path) == MAX_DEPTH:
            raise NoInstanceError(f"it is nested more than {MAX_DEPTH} levels deep, its references followed")
        schema = {} if schema is True else schema
        if not is_object(schema):
            raise NoInstanceError("it allows nothing")
        self._count(1 + len(schema))
        keyword = next((name for name in _UNSUPPORTED if name in schema), None)
        if keyword is not None:
            raise NoInstanceError(f"{keyword!r} is not supported")
        return self._build_supported(schema, path)

    def _build_supported(self, schema: Schema, path: _Path) -> SchemaInstance:
        inner = (*path, None)
        match schema:
            case {"$ref": reference, **rest}:
                if reference in path:
                    # The shortest instance never contains itself.
                    raise NoInstanceError(f"{reference!r} contains itself without end")
                return self.build(self._merge(rest, self._target(reference)), (*path, reference))
            case {"allOf": schemas, **rest}:
                return self.build(reduce(self._merge, schemas, rest), inner)
            case {"anyOf": schemas, **rest} | {"oneOf": schemas, **rest}:
                return self._shortest(lambda each: self.build(self._merge(rest, each), inner), schemas)
            case {"const": value}:
                return _leaf(value)
            case {"enum": values}:
                return self._enum(values)[0]
            case _:
                return self._shortest(lambda kind: _BUILDERS[kind](self, schema, inner), _types(schema))

    def build_object(self, schema: Schema, path: _Path) -> SchemaInstance:
        """Return the object with the fewest members."""
        properties: Mapping[str, Any] = schema.get("properties", {})
        required = dict.fromkeys(schema.get("required", ()))
        optional = [name for name in properties if name not in required]
        missing = _at_most(MAX_LENGTH, int(schema.get("minProperties", 0))) - len(required)
        names = [*required, *[*optional, *(f"member{number}" for number in range(missing))][: max(missing, 0)]]
        _at_most(schema.get("maxProperties", MAX_LENGTH), len(names))
        other = schema.get("additionalProperties", True)
        members = {name: self.build(properties.get(name, other), path) for name in names}
        length = sum(len(json.dumps(name)) + size for name, (_, size) in members.items())
        return _require_fit({name: value for name, (value, _) in members.items()}, length)

    def build_array(self, schema: Schema, path: _Path) -> SchemaInstance:
        """Return the array with the fewest items."""
        count = _at_most(schema.get("maxItems", MAX_LENGTH), schema.get("minItems", 0))
        items = [self.build(item, path) for item in schema.get("prefixItems", ())[:count]]
        further, missing = schema.get("items", True), count - len(items)
        if missing > 1 and schema.get("uniqueItems"):
            items += self._different(further, missing)
        elif missing:
            items += [self.build(further, path)] * missing
        return _require_fit([value for value, _ in items], sum(size for _, size in items))

    def _different(self, schema: object, count: int) -> list[SchemaInstance]:
        """Return different items for a set; only enumerations have them."""
        while is_object(schema) and "$ref" in schema:
            self._count(1)
            schema = self._target(schema["$ref"])
        values = self._enum(schema["enum"]) if is_object(schema) and "enum" in schema else []
        if len(values) < count:
            raise NoInstanceError(f"{count} different items need an 'enum' of as many values")
        return values[:count]

    def _enum(self, values: Sequence[object]) -> list[SchemaInstance]:
        """Return the values of an enumeration, the shortest first."""
        self._count(len(values))
        if not values:
            raise NoInstanceError("it allows nothing")
        return sorted(map(_leaf, values), key=_length)

    def _target(self, reference: str) -> object:
        if not reference.startswith("#"):
            raise NoInstanceError(f"{reference!r} lies outside of it")
        target = self.root
        for name in reference[1:].split("/")[1:]:
            key = name.replace("~1", "/").replace("~0", "~")
            if not is_object(target) or key not in target:
                raise NoInstanceError(f"{reference!r} points nowhere")
            target = target[key]
        return target

    def _merge(self, first: Schema, second: object) -> Schema:
        """Return the schema that allows what both allow.

        Raises:
            NoInstanceError: If both set a keyword to different values.
        """
        if second is True:
            return first
        if not is_object(second):
            raise NoInstanceError("it allows nothing")
        self._count(len(first) + len(second))
        for keyword in (first.keys() & second.keys()) - _ANNOTATIONS:
            if first[keyword] != second[keyword]:
                raise NoInstanceError(f"{keyword!r} stands at two places with different values")
        return {**first, **second}

    def _shortest(self, build: Callable[[Any], SchemaInstance], alternatives: Iterable[object]) -> SchemaInstance:
        """Return the shortest instance of the alternatives; those that have none do not count.

        Raises:
            NoInstanceError: If none has one; the reason is that of the last.
        """
        instances: list[SchemaInstance] = []
        problem = NoInstanceError("it allows nothing")
        for alternative in alternatives:
            try:
                instances.append(build(alternative))
            except NoInstanceError as error:
                problem = error
        if not instances:
            raise problem
        return min(instances, key=_length)

    def _count(self, parts: int) -> None:
        self.parts -= parts
        if self.parts < 0:
            raise SchemaLimitError(f"it has more than {MAX_PARTS} parts, its references followed")


_BUILDERS: Mapping[str, Callable[[_Builder, Schema, _Path], SchemaInstance]] = {
    "integer": lambda _builder, schema, _path: _leaf(_number(schema, whole=True)),
    "number": lambda _builder, schema, _path: _leaf(_number(schema, whole=False)),
    "string": lambda _builder, schema, _path: _leaf(_string(schema)),
    "array": _Builder.build_array,
    "object": _Builder.build_object,
    "boolean": lambda _builder, _schema, _path: _leaf(value=True),
    "null": lambda _builder, _schema, _path: _leaf(None),
}


_KEYWORD_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("properties", "required", "minProperties"), "object"),
    **dict.fromkeys(("items", "prefixItems", "minItems"), "array"),
    **dict.fromkeys(("pattern", "format", "minLength"), "string"),
}


def _types(schema: Schema) -> list[str]:
    """Return the types that a schema allows; if it names none, the type that its keywords are about."""
    types = schema.get("type")
    if types is None:
        return [next((kind for keyword, kind in _KEYWORD_TYPES.items() if keyword in schema), "integer")]
    return [name for name in (types if is_list(types) else [types]) if name in _BUILDERS]


def _leaf(value: Any) -> SchemaInstance:
    return value, len(json.dumps(value))


def _length(instance: SchemaInstance) -> int:
    return instance[1]


def _require_fit(value: list[Any] | dict[str, Any], length: int) -> SchemaInstance:
    """Return an array or object, unless it is too long; `length` is that of its items or members."""
    length += 2 + 2 * len(value)
    if length > MAX_CHARACTERS:
        raise SchemaLimitError(f"its instances take more than {MAX_CHARACTERS} characters")
    return value, length


def _at_most(limit: int, count: int) -> int:
    if count > limit:
        raise NoInstanceError(f"{count} parts are more than {limit}")
    return count


def _number(schema: Schema, *, whole: bool) -> int | float:
    """Return the number nearest to zero, as far as its bounds are simple; the middle if nothing else lies between."""
    low = max(_bounds(schema, "minimum", "exclusiveMinimum"), default=None)
    high = min(_bounds(schema, "maximum", "exclusiveMaximum"), default=None)
    step = Fraction(str(schema.get("multipleOf", 1)))
    if step <= 0:
        raise NoInstanceError(f"multipleOf is {schema['multipleOf']!r}")
    step = Fraction(step.numerator) if whole else step
    below_zero = high is not None and high < 0
    nearest = step * (
        math.floor(high / step) if high is not None and below_zero else math.ceil(max(low or 0, 0) / step)
    )
    candidates = [nearest, nearest - step, nearest + step] if below_zero else [nearest, nearest + step, nearest - step]
    if not whole and "multipleOf" not in schema and low is not None and high is not None:
        candidates.append((low + high) / 2)
    excluded = _bounds(schema, "exclusiveMinimum", "exclusiveMaximum")
    for number in candidates:
        if (low is None or low <= number) and (high is None or number <= high) and number not in excluded:
            return int(number) if number.denominator == 1 else float(number)
    raise NoInstanceError("no number lies within the bounds")


def _bounds(schema: Schema, *keywords: str) -> list[Fraction]:
    """Return bounds as they are written, not as they are stored: 0.1 is a tenth. Older drafts have boolean ones."""
    values = [schema.get(keyword) for keyword in keywords]
    return [Fraction(str(value)) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]


def _string(schema: Schema) -> str:
    least, most = int(schema.get("minLength", 0)), schema.get("maxLength", math.inf)
    if least > min(most, MAX_LENGTH):
        raise NoInstanceError(f"a string must be of {least} characters")
    if "pattern" in schema:
        return _matching_string(schema, least, most)
    text = _FORMATS.get(schema.get("format", ""), "a" * least)
    if not least <= len(text) <= most:
        raise NoInstanceError(f"no string of its length fits {schema['format']!r}")
    return text


def _matching_string(schema: Schema, least: int, most: float) -> str:
    """Return a string that matches the pattern: the shortest one, or one that the schema itself gives."""
    pattern = str(schema["pattern"])
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise SchemaLimitError(f"a pattern has more than {MAX_PATTERN_LENGTH} characters")
    try:
        matches = Pattern(pattern).is_found_in
    except PatternError as error:
        raise NoInstanceError(f"this pattern is not supported: {pattern!r}") from error
    for text in ("a" * least, schema.get("default"), *schema.get("examples", ())[:MAX_EXAMPLES]):
        if isinstance(text, str) and least <= len(text) <= min(most, MAX_MATCHED) and matches(text):
            return text
    raise NoInstanceError(f"its pattern needs a 'default' or 'examples' that match it: {pattern!r}")
