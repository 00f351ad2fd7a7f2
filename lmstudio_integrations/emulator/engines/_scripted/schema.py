"""The smallest valid instance of a JSON schema: the one with the fewest characters, the first of equals.

A schema is brought into flat alternatives, without references and combinations; each is filled with as little as it
allows, and the smallest wins. Of `oneOf`, one alternative is filled; that no other fits it, too, is left to the schema.
All of it stays within the bounds of `budget.py`.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from lmstudio_integrations._typeguards import is_list, is_object
from lmstudio_integrations.emulator.engines._scripted.budget import DEEPEST, Budget, SchemaLimitError
from lmstudio_integrations.emulator.engines._scripted.merge import merge
from lmstudio_integrations.emulator.engines._scripted.refusals import unsupported
from lmstudio_integrations.emulator.engines._scripted.values import (
    MOST,
    MOST_DIFFERENT,
    NoInstanceError,
    numbers,
    strings,
)

Schema = Mapping[str, Any]
_T = TypeVar("_T")

_COMBINING = frozenset({"$ref", "allOf", "anyOf", "oneOf", "$defs", "definitions", "const"})
_UNREADABLE = ("not", "if", "contains", "dependentRequired", "dependentSchemas", "$dynamicRef", "$recursiveRef")
_MOST_ALTERNATIVES = 256
_COPIES = 100
"""Where many schemas are merged, what has come together is copied with each; so many copies cost as much as a part."""

_LONGEST_REASON = 500


def smallest(schema: object) -> Any:
    """Return the smallest valid instance of a schema.

    Raises:
        EngineError: If the schema has none, or says more than can be followed here.
    """
    try:
        return _instances(schema, _Place(schema))[0]
    except (NoInstanceError, SchemaLimitError) as error:
        raise unsupported(f"this JSON schema: {str(error)[:_LONGEST_REASON]}") from error
    except RecursionError as error:
        raise unsupported(f"this JSON schema: it is nested more than {DEEPEST} levels deep") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        # A client may send anything as a schema.
        raise unsupported(f"this JSON schema, which is not a valid one: {str(error)[:_LONGEST_REASON]}") from error


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a schema we are: the whole of it, the references that led here, how deep it is, and what is left."""

    root: object
    references: tuple[str, ...] = ()
    level: int = 0
    budget: Budget = field(default_factory=Budget)

    def inner(self) -> "_Place":
        """Return the place of a schema within this one.

        Raises:
            NoInstanceError: If it lies too deep; another alternative may do.
        """
        if self.level == DEEPEST:
            raise NoInstanceError(f"it is nested more than {DEEPEST} levels deep, its references followed")
        return replace(self, level=self.level + 1)

    def follow(self, reference: str) -> tuple[object, "_Place"]:
        """Return what a reference points to, and the place behind it. No smallest instance lies within itself."""
        if reference in self.references:
            raise NoInstanceError(f"{reference!r} contains itself without end")
        if not reference.startswith("#"):
            raise NoInstanceError(f"{reference!r} lies outside of it")
        target = self.root
        for name in reference[1:].split("/")[1:]:
            key = name.replace("~1", "/").replace("~0", "~")
            if not is_object(target) or key not in target:
                raise NoInstanceError(f"{reference!r} points nowhere")
            target = target[key]
        return target, replace(self.inner(), references=(*self.references, reference))


_Flat = tuple[Schema, _Place]


def _instances(schema: object, place: _Place, want: int = 1) -> list[Any]:
    """Return at least one and at most `want` instances that differ, the smallest first."""
    place = place.inner()
    found = _any(partial(_fill, flat, here, want) for flat, here in _alternatives(schema, place))
    written = {_written(instance, place): instance for instance in found}
    return [written[text] for text in sorted(written, key=len)[:want]]


def _any(ways: Iterable[Callable[[], list[_T]]]) -> list[_T]:
    """Return what all ways yield that lead somewhere.

    Raises:
        NoInstanceError: If none does; the reason is that of the last.
    """
    found: list[_T] = []
    problem = NoInstanceError("it allows nothing")
    for way in ways:
        try:
            found += way()
        except NoInstanceError as error:
            problem = error
    if not found:
        raise problem
    return found


def _written(instance: object, place: _Place) -> str:
    text = json.dumps(instance, sort_keys=True)
    place.budget.write(len(text))
    return text


def _alternatives(schema: object, place: _Place) -> list[_Flat]:
    """Return the flat schemas of which an instance must fit one."""
    place.budget.take(1)
    if schema is True:
        return [({}, place)]
    if not is_object(schema):
        raise NoInstanceError("it allows nothing")
    unreadable = next((keyword for keyword in _UNREADABLE if keyword in schema), None)
    if unreadable is not None:
        raise NoInstanceError(f"{unreadable!r} is not understood")
    own = {keyword: value for keyword, value in schema.items() if keyword not in _COMBINING}
    if "const" in schema:
        own = merge(own, {"enum": [schema["const"]]})
    parts: list[list[_Flat]] = [[(own, place)]]
    if "$ref" in schema:
        parts.append(_alternatives(*place.follow(str(schema["$ref"]))))
    parts += [_alternatives(part, place.inner()) for part in schema.get("allOf", ())]
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            parts.append(_any(partial(_alternatives, choice, place.inner()) for choice in schema[keyword]))
    ways = itertools.islice(itertools.product(*parts), _MOST_ALTERNATIVES)
    return _any(partial(_together, way, place) for way in ways)


def _together(parts: Sequence[_Flat], place: _Place) -> list[_Flat]:
    """Return the flat schema that allows what all parts allow, behind all references that led to them."""
    size = sum(_size(flat) for flat, _ in parts)
    place.budget.take(max(size, len(parts) * size // _COPIES))
    behind = [name for _, here in parts for name in here.references[len(place.references) :]]
    return [(merge(*(flat for flat, _ in parts)), replace(place, references=(*place.references, *behind)))]


def _size(schema: Schema) -> int:
    """Return how many keywords a flat schema has, and values under them: what merging it costs."""
    return 1 + sum(len(value) if is_list(value) or is_object(value) else 1 for value in schema.values())


def _fill(schema: Schema, place: _Place, want: int) -> list[Any]:
    """Return instances of a flat schema, at most `want` of each type."""
    types = _types(schema)
    if "enum" in schema:
        return [value for value in schema["enum"] if any(_IS_A[name](value) for name in types)]
    return _any(partial(_MAKERS[name], schema, place, want) for name in types)


def _types(schema: Schema) -> list[str]:
    """Return the types that a schema allows; where it names none, those that its keywords are about."""
    named = schema.get("type")
    if named is not None:
        names = dict.fromkeys(str(name) for name in (named if is_list(named) else [named]))
        return [name for name in names if name in _MAKERS]
    return list(dict.fromkeys(_ABOUT[keyword] for keyword in schema if keyword in _ABOUT)) or list(_MAKERS)


def _objects(schema: Schema, place: _Place, _want: int) -> list[Any]:
    """Return the object with the fewest members; for sets of objects, one is all there is."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    required = dict.fromkeys(schema.get("required", ()))
    optional = [name for name in properties if name not in required]
    missing = _at_most(MOST, int(schema.get("minProperties", 0))) - len(required)
    names = [*required, *[*optional, *(f"member{number}" for number in range(missing))][: max(missing, 0)]]
    _at_most(schema.get("maxProperties", MOST), len(names))
    other = schema.get("additionalProperties", True)
    return [{name: _instances(properties.get(name, other), place)[0] for name in names}]


def _arrays(schema: Schema, place: _Place, _want: int) -> list[Any]:
    """Return the array with the fewest items; as for objects, one is all there is."""
    further, first = schema.get("items", True), schema.get("prefixItems", ())
    if is_list(further):
        further, first = schema.get("additionalItems", True), further
    unique = bool(schema.get("uniqueItems"))
    least = _at_most(min(schema.get("maxItems", MOST), MOST_DIFFERENT if unique else MOST), schema.get("minItems", 0))
    items, others = first[:least], max(least - len(first), 0)
    if unique:
        return [_different([*items, *[further] * others], place)]
    alike = _instances(further, place) * others if others else []
    place.budget.write(others * len(_written(alike[:1], place)))
    return [[*(_instances(item, place)[0] for item in items), *alike]]


def _at_most(most: int, count: int) -> int:
    if count > most:
        raise NoInstanceError(f"{count} parts are more than {most}")
    return count


def _different(items: Sequence[object], place: _Place) -> list[Any]:
    """Return an instance of each schema; no two of them are equal."""
    taken: dict[str, Any] = {}
    pools: dict[int, Iterator[Any]] = {}
    for item in items:
        pool = pools.get(id(item))
        if pool is None:
            pool = pools[id(item)] = iter(_instances(item, place, len(items)))
        for value in pool:
            text = _written(value, place)
            if text not in taken:
                taken[text] = value
                break
        else:
            raise NoInstanceError("an array needs more different items than there are")
    return list(taken.values())


_MAKERS: Mapping[str, Callable[[Schema, _Place, int], list[Any]]] = {
    "integer": lambda schema, _place, want: numbers(schema, want, whole=True),
    "number": lambda schema, _place, want: numbers(schema, want, whole=False),
    "string": lambda schema, place, want: [*strings(schema, want, place.budget)],
    "array": _arrays,
    "object": _objects,
    "boolean": lambda _schema, _place, _want: [False, True],
    "null": lambda _schema, _place, _want: [None],
}

_IS_A: Mapping[str, Callable[[Any], bool]] = {
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": is_list,
    "object": is_object,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}

_ABOUT: Mapping[str, str] = {
    "properties": "object",
    "required": "object",
    "additionalProperties": "object",
    "minProperties": "object",
    "items": "array",
    "prefixItems": "array",
    "minItems": "array",
    "minLength": "string",
    "pattern": "string",
    "format": "string",
    "minimum": "number",
    "exclusiveMinimum": "number",
    "maximum": "number",
    "exclusiveMaximum": "number",
    "multipleOf": "number",
}
"""Which type a keyword says something of."""
