"""What two JSON schemas that must both be met come to, as one flat schema.

Members of objects and items of arrays are not merged here: `allOf` puts that off until they are looked at.
"""

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

from lmstudio_integrations._typeguards import is_list
from lmstudio_integrations.emulator.engines._scripted.budget import SchemaLimitError
from lmstudio_integrations.emulator.engines._scripted.values import NoInstanceError

Schema = Mapping[str, Any]

MOST_PAIRS = 1_000_000
"""The most pairs of values that are compared where two `enum` must both be met."""

LARGEST_FACTOR = 1 << 64
"""Beyond it, `multipleOf` of many parts would grow into numbers that take long to work with."""


def merge(*schemas: Schema) -> dict[str, Any]:
    """Return the schema that allows what each of the flat schemas allows.

    Raises:
        NoInstanceError: If two of them contradict each other, or cannot be brought together here.
    """
    nothing: dict[str, Any] = {}
    return reduce(_merge, schemas, nothing)


def _merge(first: dict[str, Any], second: Schema) -> dict[str, Any]:
    merged = {**first, **second}
    for keyword in first.keys() & second.keys() & _BOTH.keys():
        if first[keyword] != second[keyword]:
            merged[keyword] = _BOTH[keyword](first[keyword], second[keyword])
    return merged


def _neither(first: object, second: object) -> Any:
    raise NoInstanceError(f"{first!r} and {second!r} cannot be met together")


def _all(first: object, second: object) -> dict[str, Any]:
    return {"allOf": [first, second]}


def _types(first: Any, second: Any) -> list[str]:
    ours, theirs = ({str(name) for name in (value if is_list(value) else [value])} for value in (first, second))
    for names, others in ((ours, theirs), (theirs, ours)):
        if "number" in names and "integer" in others:
            names.add("integer")
    return sorted(ours & theirs)


def _properties(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    shared = {name: _all(first[name], second[name]) for name in first.keys() & second.keys()}
    return {**first, **second, **shared}


def _multiple(first: object, second: object) -> Any:
    if not (isinstance(first, int) and isinstance(second, int)):
        return _neither(first, second)
    if max(first, second) > LARGEST_FACTOR:
        raise SchemaLimitError(f"numbers above {LARGEST_FACTOR} in multipleOf are too large to be met together")
    return math.lcm(first, second)


def _enum(first: list[Any], second: list[Any]) -> list[Any]:
    if len(first) * len(second) > MOST_PAIRS:
        raise SchemaLimitError(f"two of its lists of values have more than {MOST_PAIRS} pairs")
    return [value for value in first if value in second]


def _larger(first: Any, second: Any) -> Any:
    return max(first, second)


def _smaller(first: Any, second: Any) -> Any:
    return min(first, second)


_BOTH: Mapping[str, Callable[[Any, Any], Any]] = {
    "type": _types,
    "enum": _enum,
    "required": lambda first, second: [*first, *second],
    "properties": _properties,
    "items": _all,
    "additionalProperties": _all,
    "multipleOf": _multiple,
    "uniqueItems": lambda first, second: first or second,
    **dict.fromkeys(("pattern", "format", "prefixItems"), _neither),
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), _larger),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), _smaller),
}
"""By keyword: what two values come to. Of keywords that restrict nothing, the last value stays."""
